"""Ask the base and the trained model the same problem: `python -m tasks.commands.try_it`.

Type a problem, or let `--test 3` draw three from the test split. Both models' attempts stand side by
side, with the verdict where the right answer is known.
"""

import argparse
import os
import random
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_core.errors import UserError
from score_core.problems import Problem, read_problems
from score_core.report.visible import visible
from tasks.runner.command_line import add_configuration, read_configuration
from tasks.runner.exits import exit_code
from tasks.runner.pipeline import outputs_of, stages_of

if TYPE_CHECKING:
    import pandas as pd

# Each model's heading, and the stage that makes it.
MODELS = {"base model": "prepare_base_model", "trained model": stages_of("train")[-1]}
WIDTH = 80
COLUMN = 38  # two columns and four spaces between them

Row = Mapping[str, Any]
Ask = Callable[[list[Problem]], list["pd.DataFrame"]]  # a table of generations for each of MODELS


def side_by_side(problem: Problem, rows: list[Row]) -> str:
    """Each model's attempts at one problem, in two columns of an 80-column terminal.

    Args:
        problem: without references no verdict is shown.
        rows: for each of `MODELS`, its row of generations.
    """
    lines = [*_wrapped(f"Problem  {problem.problem}", WIDTH)]
    if problem.answer:
        lines += _wrapped(f"Answer   {problem.answer}", WIDTH)
    lines += ["", _columns(MODELS), _columns(["-" * COLUMN] * len(rows))]
    attempts = sum(key.startswith("text_t") for key in rows[0])
    for t in range(1, attempts + 1):
        cells = []
        for row in rows:
            verdict = ""
            if problem.answer:
                verdict = ": right" if row[f"correct_t{t}"] else ": wrong"
            cells.append([f"attempt {t}{verdict}", *_wrapped(row[f"text_t{t}"], COLUMN - 2, indent="  ")])
        lines += [_columns(line) for line in zip_longest(*cells, fillvalue="")]
    return "\n".join(line.rstrip() for line in lines)


def _columns(cells: Iterable[str]) -> str:
    return "    ".join(cell.ljust(COLUMN) for cell in cells)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width`; what a model writes must not steer the terminal, so controls are shown."""
    lines = []
    for line in visible(text).expandtabs(4).splitlines() or ["(nothing)"]:
        lines += textwrap.wrap(line, width, drop_whitespace=False, break_on_hyphens=False) or [""]
    return [indent + line for line in lines]


def show(problems: list[Problem], ask: Ask) -> None:
    """Asks both models and prints what they say."""
    tables = [table.to_dict("records") for table in ask(problems)]
    for problem, *rows in zip(problems, *tables, strict=True):
        print("\n" + side_by_side(problem, rows))


def converse(ask: Ask, example: str | None) -> None:
    """Reads problems from the terminal until an empty line or the end of the input."""
    print("Type a problem; an empty line ends." + (f" For example: {example}" if example else ""))
    while True:
        try:
            text = input("\n> ").strip()
        except EOFError:
            return
        if not text:
            return
        try:
            show([typed(text)], ask)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def typed(text: str) -> Problem:
    """A problem a person typed, whose answer nobody knows."""
    return Problem(id="typed", problem=text, references=())


def check_models(folders: Iterable[Path]) -> None:
    """Says which stage to run where a model is missing."""
    for folder, stage in zip(folders, MODELS.values(), strict=True):
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError(
                f"{folder}: no model here; run `make repro`, or `dvc repro {stage}`, which makes it."
            )


def run(given: argparse.Namespace, ask: Ask) -> None:
    """Shows what the command line asks for."""
    if given.problem is not None:
        show([typed(given.problem)], ask)
    elif given.test is not None:
        problems = read_problems(given.data, "test")
        # Drawn anew each time: this is for looking around, and no result depends on it.
        show(random.sample(problems, min(given.test, len(problems))), ask)
    else:
        known = (given.data / "test.parquet").is_file()
        converse(ask, read_problems(given.data, "test")[0].problem if known else None)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.commands.try_it", description=__doc__.splitlines()[0]
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--problem", metavar="TEXT", help="ask this and end")
    what.add_argument("--test", metavar="N", type=_count, nargs="?", const=1, help="draw N test problems (1)")
    base, trained = (outputs_of(stage)[0] for stage in MODELS.values())
    data = outputs_of("download_data")[0]
    parser.add_argument("--base", type=Path, default=base, help=f"the one model ({base})")
    parser.add_argument("--trained", type=Path, default=trained, help=f"the other ({trained})")
    parser.add_argument("--data", type=Path, default=data, help=f"the prepared splits ({data})")
    add_configuration(parser)
    given = parser.parse_args(arguments)

    def work() -> None:
        config, runtime = read_configuration(given)
        check_models([given.base, given.trained])
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars would stand between the answers
        from score_core.evaluation.evaluate import Evaluator  # loads torch

        models = cache(
            lambda: [Evaluator(folder, config, runtime, given.base) for folder in (given.base, given.trained)]
        )
        run(given, lambda problems: [one.evaluate(problems, show_progress=False) for one in models()])

    return exit_code("try_it", work)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
