"""Refuses settings that would cost the pipeline what it has made: the first stage, which makes nothing.

    python -m tasks.check

DVC removes a stage's outputs before it starts it. So a mistake in params.yaml or runtime.yaml is to be found
before any other stage runs, and a setting that names what the pipeline makes would find nothing there.
"""

import argparse
from pathlib import Path

from score_core.config.code_data import CodeData
from score_core.config.data import ArchiveData, LocalData
from score_core.config.model import LocalModel
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.errors import UserError
from tasks.runner.pipeline import all_outputs, read_pipeline, stages_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Checks of the parameters, which have been read by now, what only dvc.yaml and the disk can tell."""
    for stage in stages_of("train"):
        words = read_pipeline()[stage]["cmd"].split()
        config.stage(words[words.index("--name") + 1])
    for key, path in _inputs(config).items():
        for made, stage in all_outputs().items():
            if path.resolve().is_relative_to(made.resolve()):
                raise UserError(
                    f"{key}: {path} is what {stage} makes, and DVC removes it before that starts; copy it "
                    f"out of {made}, e.g. `cp -rL {path} mine`, and name the copy."
                )
        if not path.exists():
            raise UserError(f"{key}: {path} not found; name a file or a folder that is there.")


def _inputs(config: Config) -> dict[str, Path]:
    """The local files and folders that this run reads, by the keys that name them."""
    said = config.conversation
    keys = ("folder", "system", "first", "retry", "verify", "revise", "few_shot")
    named = {f"conversation.{key}": getattr(said, key) for key in keys}
    used = config.used_data
    if isinstance(used, LocalData) or (isinstance(used, ArchiveData) and used.local):
        key = "data.path" if used is config.data else "data.fixture"
        named[key] = used.path
    if isinstance(used, CodeData):
        named |= {f"data.{key}": path for key, path in used.local.items()}
    if isinstance(config.used_model, LocalModel):
        named["model.path"] = config.used_model.path
    # A judge may be a model that the pipeline makes before it trains.
    named |= {key: path for key, path in config.reward.read.items() if path not in all_outputs()}
    return {key: Path(path) for key, path in named.items() if path is not None}


if __name__ == "__main__":
    from tasks.runner.command_line import run_stage

    run_stage("check", add_arguments, outputs=lambda given: [], run=run)
