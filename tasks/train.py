"""Trains a model folder by reinforcement learning, as a stage of params.yaml says.

    python -m tasks.train models/stage1 --name stage1 --start models/base --reference models/base \\
        --data data/prepared --metrics metrics/train_stage1

Writes the model folder OUTPUT and METRICS.json (a summary), METRICS_curve.csv and METRICS_validation.csv
(over training) and METRICS.jsonl (both as one log). If it is stopped or killed, the same command goes on
from its last checkpoint in .runs/train_STAGE/.
"""

import argparse
from pathlib import Path

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from tasks.runner.command_line import run_folder, run_name, run_stage
from tasks.runner.pipeline import code_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which stage, and every path."""
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the trained model: a folder to write")
    parser.add_argument(
        "--name",
        type=run_name,
        required=True,
        metavar="STAGE",
        help="the section of the parameters to train by, e.g. stage1; also names the run",
    )
    parser.add_argument("--start", type=Path, required=True, metavar="FOLDER", help="the model to train")
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the model that the KL is measured from, and that adapters sit on",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the prepared splits")
    parser.add_argument(
        "--metrics", type=Path, required=True, metavar="METRICS", help="how the files of metrics begin"
    )


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Trains `given.start` as the section `given.name` says."""
    from score_core.algorithms import make_algorithm
    from score_core.rl.training import Folders, train

    algorithm = make_algorithm(config.stage(given.name))
    folders = Folders(
        start=given.start,
        reference=given.reference,
        data=given.data,
        output=given.output,
        metrics=given.metrics,
        work=run_folder("train", given),
    )
    train(config, runtime, folders, given.name, algorithm, code_of("train"))


if __name__ == "__main__":
    run_stage(
        "train",
        add_arguments,
        outputs=lambda given: [given.output, Path(f"{given.metrics}.json")],
        run=run,
        section=lambda given: given.name,
    )
