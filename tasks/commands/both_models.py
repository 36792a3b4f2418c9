"""The base and the trained model together, for people who try them: in a terminal, or in a browser."""

import argparse
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from score_core.errors import refusing
from score_core.problems import Problem
from tasks.runner.command_line import add_configuration, in_one_process, read_configuration
from tasks.runner.pipeline import check_model_made, outputs_of, stages_of

if TYPE_CHECKING:
    from score_core.evaluation.evaluate import Evaluator

# Each model's heading, and the stage that makes it.
MODELS = {"base model": "prepare_base_model", "trained model": stages_of("train")[-1]}


def add_models(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which models, and how they are asked."""
    base, trained = (outputs_of(stage)[0] for stage in MODELS.values())
    data = outputs_of("download_data")[0]
    parser.add_argument("--base", type=Path, default=base, help=f"the model on the left ({base})")
    parser.add_argument("--trained", type=Path, default=trained, help=f"the model on the right ({trained})")
    parser.add_argument("--data", type=Path, default=data, help=f"the prepared splits ({data})")
    add_configuration(parser)


def both(given: argparse.Namespace) -> "Callable[[], list[Evaluator]]":
    """What loads each of `MODELS`, once, when it is first called.

    Raises:
        UserError: a setting is wrong, or a model was not made yet.
    """
    config, runtime = read_configuration(given)
    runtime, once = in_one_process(runtime), config.evaluation.model_copy(update={"samples": 1})
    config = config.model_copy(update={"evaluation": once})
    folders = (given.base, given.trained)
    for folder, stage in zip(folders, MODELS.values(), strict=True):
        check_model_made(folder, stage)
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars would stand between the answers
    from score_core.evaluation.evaluate import Evaluator  # loads torch

    return cache(lambda: [Evaluator(folder, config, runtime, given.base) for folder in folders])


def typed(text: str, references: tuple[str, ...] = ()) -> Problem:
    """A problem of a person, to which nobody may know the answer.

    Raises:
        UserError: the terminal sent bytes that are no text.
    """
    with refusing(f"{text!r}: not a text", "type it in UTF-8"):
        text.encode()
    return Problem("typed", text, references)
