"""A small checkout in which every stage has run, and the stages as functions of the files in it.

tests/fuzz.py spoils its files. Everything is of toy size, and runs in this process, in the present folder.
"""

import argparse
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from flows.results import read_accepted
from score_core.algorithms import SETTINGS
from score_core.config.parsing import load_config, load_runtime
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.embedded import tiny_model
from score_core.problems import Problem, write_problems
from tasks import download_data, evaluate, prepare_base_model, report, train
from tasks.commands import summary
from tests import configs, run_files


def lay_out(root: Path) -> None:
    """Makes the folder `root` a checkout at toy size: prompts, data, a model, an adapter, a run, results."""
    run_files.write_run(root, problems=20)
    for name in ("rows", "data", "prompts", "accepted"):
        (root / name).mkdir()
    rows = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(12)]
    for split, part in (("train", rows[:10]), ("test", rows[10:])):
        (root / "rows" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    pd.DataFrame(rows[:10]).to_csv(root / "rows" / "more.csv", index=False)
    for split in ("train", "validation", "test"):
        problems = [Problem(f"{split}{n}", f"What is {n} + 1?", (str(n + 1),)) for n in range(2)]
        write_problems(root / "data", split, problems)
    shutil.copy(root / "metrics" / "final.json", root / "accepted" / "default.json")
    (root / "prompts" / "first.txt").write_text("{problem}\n")
    (root / "prompts" / "retry.txt").write_text("Check your answer.\n")
    (root / "prompts" / "few.jsonl").write_text('{"problem": "1", "answer": "2"}')
    (root / "params.yaml").write_text(yaml.safe_dump(parameters()))
    runtime = yaml.safe_load((configs.ROOT / "runtime.yaml").read_text())
    (root / "runtime.yaml").write_text(yaml.safe_dump({**runtime, "threads": 1}))
    tiny_model.build("qwen2", 1, root / "base")
    with contextlib.chdir(root):
        learn("lora={rank: 2, alpha: 2, targets: all-linear}")
        shutil.move("out", "adapter")
        shutil.rmtree(".runs")
        learn()  # and its last checkpoint stays
        shutil.rmtree("out")


def parameters() -> dict[str, Any]:
    """A good params.yaml of the workplace."""
    return configs.content(
        data={"source": "local", "path": "rows", "validation_share": 0.5},
        model={"source": "local", "path": "base"},
        conversation={
            "folder": "prompts",
            "first": "prompts/first.txt",
            "retry": "prompts/retry.txt",
            "few_shot": "prompts/few.jsonl",
            "max_prompt_tokens": 512,
            "max_new_tokens": 2,
        },
        evaluation={"batch_size": 2},
        training={
            "steps": 1,
            "prompts_per_step": 2,
            "samples_per_prompt": 2,
            "warmup_steps": 0,
            "validate_every": 1,
            "validation_problems": 1,
        },
    )


def made_up() -> dict[str, Any]:
    """Another, whose data and model are made."""
    sizes = {"train": 8, "validation": 2, "test": 2}
    small = {"hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8, "steps": 2, "batch_size": 2}
    return parameters() | {
        key: configs.content(
            data={"source": "addition", "sizes": sizes}, model={"source": "addition", **small}
        )[key]
        for key in ("data", "model")
    }


def what_to_do(*changes: str) -> tuple[Config, Runtime]:
    """What the files of the workplace say."""
    return load_config(Path("params.yaml"), SETTINGS, changes), load_runtime(Path("runtime.yaml"), {})


def arguments(**given: Any) -> argparse.Namespace:
    """A command line; what is written goes to `out`."""
    paths = {name: Path(value) if isinstance(value, str) else value for name, value in given.items()}
    return argparse.Namespace(**{"output": Path("out"), **paths})


def fetch() -> None:
    """Stage download_data."""
    download_data.run(arguments(), *what_to_do())


def prepare() -> None:
    """Stage prepare_base_model."""
    prepare_base_model.run(arguments(), *what_to_do())


def judge(model: str = "base") -> None:
    """Stage evaluate."""
    paths = {"metrics": "out/metrics.json", "generations": "out/generations.parquet"}
    evaluate.run(arguments(model=model, base="base", data="data", resample=False, **paths), *what_to_do())


def learn(*changes: str) -> None:
    """Stage train_stage1."""
    given = arguments(start="base", reference="base", data="data", metrics="out.metrics")
    given.name = "stage1"
    train.run(given, *what_to_do(*changes))


def tell() -> None:
    """Stage report, and what is said after it."""
    evaluated, trained = run_files.files(Path())
    given = arguments(page="out/page.html", card="out/card.md", evaluated=evaluated, trained=trained)
    summary.print_summary()
    read_accepted("default", Path())
    report.run(given, *what_to_do())
