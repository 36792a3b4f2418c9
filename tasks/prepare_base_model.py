"""Puts the model to start from, which `model` in the parameters names, into a folder.

    python -m tasks.prepare_base_model models/base

It is fetched from the hub, pinned, or copied from a local folder, or built: the embedded model of sums. A
smoke run takes a tiny model of the same family in place of the hub's, and trains the embedded one for a few
steps.
"""

import argparse
from pathlib import Path

from score_core.config.data import AdditionData
from score_core.config.model import AdditionModel, HubModel, LocalModel, TinyModel
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.files import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write."""
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the model: a folder to write")


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Makes the base model that `config.model` names and checks that it loads."""
    with replacing(given.output) as folder:
        _make(config, folder, runtime.threads)
        _check(folder, source=getattr(config.model, "path", given.output))


def _make(config: Config, folder: Path, threads: int) -> None:
    import torch

    from score_core.embedded import addition_model, tiny_model
    from score_core.models.folders import copy_local_model, fetch_hub_model
    from score_core.seeding import derive_seed

    match config.used_model:
        case AdditionModel() as model:
            torch.set_num_threads(threads)
            assert isinstance(config.data, AdditionData)  # `Config` refuses anything else
            addition_model.build(model, config.data, config.seed, folder)
        case HubModel(path=path, revision=revision):
            fetch_hub_model(path, revision, folder)
        case LocalModel(path=path):
            copy_local_model(Path(path), folder)
        case TinyModel(family=family):
            tiny_model.build(family, derive_seed(config.seed, "tiny_model"), folder)


def _check(folder: Path, source: object) -> None:
    """Loads all but the weights, and looks through these, so that no later stage fails on it."""
    from score_core.errors import UserError
    from score_core.models.folders import load_configs, load_tokenizer
    from score_core.models.weights import check_finite

    try:
        load_tokenizer(folder)
        load_configs(folder)
        check_finite(folder)
    except UserError as error:
        # The message names a temporary folder; what the user can mend is where it came from.
        raise UserError(str(error).replace(str(folder), f"model.path {source}")) from error


if __name__ == "__main__":
    from tasks.runner.command_line import run_stage

    run_stage("prepare_base_model", add_arguments, outputs=lambda given: [given.output], run=run)
