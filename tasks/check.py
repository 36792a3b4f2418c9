"""Refuses settings that would cost the pipeline what it has made: the first stage, which makes nothing.

    python -m tasks.check

DVC removes a stage's outputs before it starts it. So a mistake in params.yaml or runtime.yaml is to be found
before any other stage runs, and a setting that names what the pipeline makes would find nothing there. What
takes a model, a network or the contents of a file to find is left to the stage that reads it.
"""

import argparse
import shutil
from pathlib import Path

from score_core.config.code_data import CodeData
from score_core.config.data import ArchiveData, LocalData
from score_core.config.model import LocalModel
from score_core.config.reward import BASE
from score_core.config.runtime import Launch, Runtime
from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.rewards.grader import Grader
from tasks.runner.launch import check_engine, check_kernels, launch_of
from tasks.runner.pipeline import all_outputs, read_pipeline, stages_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Checks of the settings, which have been read by now, what it takes more than their file to tell."""
    Grader(config.reward)  # finds extractor, matcher and terms by their names
    check_kernels(config, runtime)
    for section in (*_trained(), None):
        check_engine(config, runtime, section)
        # Where other machines run it this one's GPUs say nothing; and counting them takes torch, and seconds.
        if runtime.launch.through is None and (config.quantize or not _is_single(runtime.launch)):
            launch_of(config, runtime.launch, section)
    for key, path in _inputs(config).items():
        for made, stage in all_outputs().items():
            if path.resolve().is_relative_to(made.resolve()):
                raise UserError(
                    f"{key}: {path} is what {stage} makes, and DVC removes it before that starts; copy it "
                    f"out of {made}, e.g. `cp -rL {path} mine`, and name the copy."
                )
        if not path.exists():
            raise UserError(f"{key}: {path} not found; name a file or a folder that is there.")


def _trained() -> list[str]:
    """The sections of params.yaml that the pipeline trains by."""
    lines = [read_pipeline()[stage]["cmd"].split() for stage in stages_of("train")]
    return [words[words.index("--name") + 1] for words in lines]


def _is_single(launch: Launch) -> bool:
    """Whether one process is all that can come of the settings; without a driver there is no GPU to count."""
    one = launch.processes in (None, 1) and launch.machines == 1
    by_itself = launch.strategy == "auto" and one and shutil.which("nvidia-smi") is None
    return launch.strategy == "single" or by_itself


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
    # A judge may be the base model, which the pipeline makes before it trains.
    named |= {key: path for key, path in config.reward.read.items() if path != BASE}
    return {key: Path(path) for key, path in named.items() if path is not None}


if __name__ == "__main__":
    from tasks.runner.command_line import run_stage

    run_stage("check", add_arguments, outputs=lambda given: [], run=run)
