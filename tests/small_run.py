"""A whole run at the smallest size that still learns: sums of two-digit numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from score_core.algorithms import make_algorithm
from score_core.checkpointing.fingerprint import fingerprint
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.embedded.addition import make_problems
from score_core.embedded.addition_model import build
from score_core.evaluation.evaluate import Evaluator
from score_core.models.folders import load_model, load_tokenizer, save_model
from score_core.problems import Problem, write_problems
from score_core.rl.algorithm import Algorithm
from score_core.rl.training import Folders, train
from score_core.rollout import self_judge
from score_core.rollout.conversation import load_conversation
from tests.configs import ROOT, config, runtime

RUNTIME = runtime(threads=1)
# A policy of digits that judges itself: what it says of two sums is read by `digit_verdict`.
SELF_JUDGE = {
    "weight": 0.5,
    "prompt": "tests/score_core/rollout/digits_judge.txt",
    "max_new_tokens": 4,
    "temperature": 0.7,
    "both_orders": True,
    "ties": True,
    "rating": "bradley_terry",
    "top": 1.0,
}
HALF = {"source": "local", "path": "unused", "dtype": "bfloat16"}  # a model that computes in bf16
LONGEST = 33  # tokens of a dialogue of two attempts in `small_config`
CODE = [Path(__file__)]  # any: no test here changes the code it trains with


def in_micro_batches(rows: int, runtime: Runtime = RUNTIME) -> Runtime:
    """`runtime` with micro-batches that are sure to hold so many dialogues of two attempts."""
    return runtime.model_copy(update={"micro_batch_tokens": rows * LONGEST})


def small_config(**sections: Any) -> Config:
    """Two-digit sums; two steps of 8 problems, 4 samples each."""
    own: dict[str, Any] = {
        "data": {
            "source": "addition",
            "digits": 2,
            "sizes": {"train": 400, "validation": 64, "test": 64},
        },
        "model": {
            "source": "addition",
            "hidden_size": 48,
            "feed_forward": 128,
            "steps": 500,
        },
        "conversation": {
            "first": "prompts/addition/first.txt",
            "retry": "prompts/addition/retry.txt",
            "verify": "prompts/addition/verify.txt",
            "revise": "prompts/addition/retry.txt",
            "max_new_tokens": 5,
            "max_prompt_tokens": 16,
        },
        "reward": {"extractor": "last_number", "matcher": "integer"},
        "training": {
            "steps": 2,
            "prompts_per_step": 8,
            "samples_per_prompt": 4,
            "warmup_steps": 0,
            "validate_every": 1,
            "validation_problems": 8,
        },
        "stage2": {"alpha": 3.0},
    }
    for name, section in sections.items():
        both = isinstance(section, dict) and isinstance(own.get(name), dict)
        both = both and section.get("source", "addition") == own[name].get("source", "addition")
        own[name] = {**own[name], **section} if both else section
    return config(**own)


@contextmanager
def digits_are_verdicts() -> Iterator[None]:
    """Has a judge without letters be read: its reply's first digit says who wins; without one nobody does."""

    def digit_verdict(text: str) -> float | None:
        return (1.0, 0.0, 0.5, None)[int(text[0]) % 4] if text[:1].isdigit() else None

    with pytest.MonkeyPatch.context() as restored:
        restored.setattr(self_judge, "read_verdict", digit_verdict)
        yield


def prepare(root: Path) -> None:
    """Writes `root`/data and trains `root`/base; `root`/untied is the same with more weights.

    `root`/verifying is another run on the same data, of a base model that was taught verdicts.
    """
    settings = small_config()
    (root / "data").mkdir(parents=True)
    for split, problems in make_problems(settings.data, settings.seed).items():
        write_problems(root / "data", split, problems)
    torch.set_num_threads(RUNTIME.threads)
    build(settings.model, settings.data, settings.seed, root / "base")
    model = untied(load_model(root / "base"))
    save_model(model, load_tokenizer(root / "base"), root / "untied")
    taught = settings.model.model_copy(update={"verdict_share": 0.7, "leak": 0.2, "steps": 200})
    (root / "verifying").mkdir()
    (root / "verifying/data").symlink_to("../data")
    build(taught, settings.data, settings.seed, root / "verifying/base")


def untied(model: Any) -> Any:
    """The same model, with an output layer that has weights of its own."""
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def folders(run: Path, work: Path, name: str, start: Path | None = None) -> Folders:
    """Reads what `prepare` made in `run`, writes to `work`; trains from `start` or the base model."""
    return Folders(
        start=start or run / "base",
        reference=run / "base",
        data=run / "data",
        output=work / name,
        metrics=work / "metrics" / name,
        work=work / "work" / name,
    )


def algorithm(name: str, config: Config) -> Algorithm:
    """The algorithm of the stage `name`, with its settings."""
    return make_algorithm(config.stage(name))


def train_stage(name: str, config: Config, runtime: Runtime, target: Folders) -> None:
    """Trains `name`, stage1 or stage2, as `tasks.train` does."""
    train(config, runtime, target, name, algorithm(name, config), CODE)


def run_folder(name: str, config: Config, runtime: Runtime, target: Folders) -> Path:
    """Where this very run of a stage keeps its checkpoints."""
    inputs = [target.reference, target.data, target.start]
    dialogue = load_conversation(target.reference, config.conversation, 2).dialogue
    return target.work / fingerprint(config, runtime, name, inputs, CODE, dialogue)


def evaluate(
    folder: Path, problems: Sequence[Problem], config: Config, runtime: Runtime = RUNTIME
) -> pd.DataFrame:
    """The answers of the model in `folder`, as `tasks.evaluate` has them."""
    return Evaluator(folder, config, runtime).evaluate(problems)


def lay_out(folder: Path, run: Path) -> None:
    """Makes `folder` like a checkout, with the prompts and with the data and the base model of `run`."""
    targets = {"data/prepared": run / "data", "models/base": run / "base", "prompts": ROOT / "prompts"}
    for name, target in targets.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)


def write_parameters(folder: Path, **training: Any) -> None:
    """Writes the checkout's params.yaml to `folder`, at a size for two-digit sums; `training` on top."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["conversation"] |= {"max_new_tokens": 5, "max_prompt_tokens": 16}
    sizes = {"prompts_per_step": 8, "samples_per_prompt": 4, "validation_problems": 8}
    content["training"] |= sizes | training
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
