"""A whole run at the smallest size that still learns: sums of two-digit numbers."""

from pathlib import Path
from typing import Any

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from score_core.embedded.addition import make_problems
from score_core.embedded.addition_model import build
from score_core.problems import write_problems
from score_core.rl.training import Folders
from tests.configs import config

RUNTIME = Runtime(threads=1)


def small_config(**sections: Any) -> Config:
    """Two-digit sums; `stage1` and `stage2` are laid over two steps of 8 problems, 4 samples each."""
    stage = {
        "steps": 2,
        "prompts_per_step": 8,
        "samples_per_prompt": 4,
        "warmup_steps": 0,
        "validate_every": 1,
        "validation_problems": 8,
    }
    sections["stage1"] = {**stage, **sections.get("stage1", {})}
    sections["stage2"] = {**stage, "alpha": 3, **sections.get("stage2", {})}
    return config(
        **{
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
                "leak": 0.005,
            },
            "conversation": {
                "first": "prompts/addition/first.txt",
                "retry": "prompts/addition/retry.txt",
                "max_new_tokens": 5,
                "max_prompt_tokens": 16,
            },
            "reward": {"extractor": "last_integer", "matcher": "integer"},
            **sections,
        }
    )


def prepare(root: Path) -> None:
    """Writes `root`/data and trains `root`/base."""
    settings = small_config()
    (root / "data").mkdir(parents=True)
    for split, problems in make_problems(settings.data, settings.seed).items():
        write_problems(root / "data", split, problems)
    build(settings.model, settings.data, settings.seed, root / "base", RUNTIME.threads)


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
    return target.work / fingerprint(config, runtime, name, inputs, CODE)
