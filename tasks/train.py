"""Trains a model folder on attempts that it samples, as a stage of params.yaml says.

    python -m tasks.train models/stage1 --name stage1 --start models/base --reference models/base \\
        --data data/prepared --metrics metrics/train_stage1

Writes the model folder OUTPUT and METRICS.json (a summary), METRICS_curve.csv and METRICS_validation.csv
(over training) and METRICS.jsonl (both as one log). If it is stopped or killed, the same command goes on
from its last checkpoint in .runs/train_STAGE/. That of a finished training is kept until DVC has recorded the
outputs (tasks/runner/recorded.py).
"""

import argparse
from functools import partial
from pathlib import Path

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from tasks.runner.command_line import run_folder, run_name, run_stage
from tasks.runner.exits import is_first
from tasks.runner.pipeline import code_of
from tasks.runner.recorded import note_finished, remove_recorded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which stage, and every path."""
    file = partial(parser.add_argument, type=Path, required=True)
    named = "the section of the parameters to train by, e.g. stage1; also names the run"
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the trained model: a folder to write")
    parser.add_argument("--name", type=run_name, required=True, metavar="STAGE", help=named)
    file("--start", metavar="FOLDER", help="the model to train")
    file("--reference", metavar="FOLDER", help="the model that KL and adapters refer to")
    file("--data", metavar="FOLDER", help="the prepared splits")
    file("--metrics", metavar="METRICS", help="path prefix of the metrics files")


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Trains `given.start` as the section `given.name` says."""
    from score_core.algorithms import make_algorithm
    from score_core.rl.training import Folders, train

    algorithm, work = make_algorithm(config.stage(given.name)), run_folder("train", given)
    if is_first():
        remove_recorded(work.parent)
    folders = Folders(
        start=given.start,
        reference=given.reference,
        data=given.data,
        output=given.output,
        metrics=given.metrics,
        work=work,
    )
    run = train(config, runtime, folders, given.name, algorithm, code_of("train"))
    if is_first():
        note_finished(run, Path(f"{given.metrics}.jsonl"))


if __name__ == "__main__":
    run_stage(
        "train",
        add_arguments,
        outputs=lambda given: [given.output, Path(f"{given.metrics}.json")],
        run=run,
        section=lambda given: given.name,
        model=lambda given: given.reference,
    )
