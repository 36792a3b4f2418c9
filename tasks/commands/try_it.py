"""Ask the base and the trained model the same problem: `python -m tasks.commands.try_it`.

Type a problem, or let `--test 3` draw three from the test split. Both models' attempts stand side by
side, with the verdict where the right answer is known. `browse` shows the same in a browser.
"""

import argparse
import random
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from score_core.errors import UserError
from score_core.problems import Problem, read_problems
from score_core.report.visible import visible
from tasks.commands.both_models import MODELS, add_models, both, typed
from tasks.runner.exits import exit_code, parser_of

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
Ask = Callable[[list[Problem]], list["pd.DataFrame"]]  # a table of generations for each of MODELS


def side_by_side(problem: Problem, rows: list[Row]) -> str:
    """Each model's attempts at one problem, in two columns of an 80-column terminal.

    Args:
        problem: without references no verdict is shown.
        rows: for each of `MODELS`, its row of generations.
    """
    table = Table(box=None, padding=(0, 4, 0, 0), pad_edge=False)
    for heading in MODELS:
        table.add_column(f"{heading}\n{'-' * 38}", width=38, overflow="fold")
    attempts = sum(key.startswith("text_t") for key in rows[0])
    for t in range(1, attempts + 1):
        verdicts = [": right" if row[f"correct_t{t}"] else ": wrong" for row in rows]
        table.add_row(*(f"attempt {t}{verdict if problem.answer else ''}" for verdict in verdicts))
        table.add_row(*(Padding(_harmless(row[f"text_t{t}"]), (0, 0, 0, 2)) for row in rows))
        if f"text_v{t}" in rows[0]:
            table.add_row(*[f"its verdict on attempt {t}"] * len(rows))
            table.add_row(*(Padding(_harmless(row[f"text_v{t}"]), (0, 0, 0, 2)) for row in rows))
    console = Console(width=80, tab_size=4, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(f"Problem  {_harmless(problem.problem)}")
        if problem.answer:
            console.print(f"Answer   {_harmless(problem.answer)}")
        console.print("", table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _harmless(text: str) -> str:
    """What a model writes must not steer the terminal, so controls are shown."""
    return "\n".join(visible(text).splitlines()) or "(nothing)"


def show(problems: list[Problem], ask: Ask) -> None:
    """Asks both models and prints what they say."""
    tables = [table.to_dict("records") for table in ask(problems)]
    for problem, *rows in zip(problems, *tables, strict=True):
        print("\n" + side_by_side(problem, rows))


def converse(ask: Ask, example: str | None) -> None:
    """Reads problems from the terminal until an empty line or the end of the input."""
    print("Type a problem; an empty line ends." + (f" For example: {example}" if example else ""))
    with suppress(EOFError):
        while text := input("\n> ").strip():
            try:
                show([typed(text)], ask)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)


def run(given: argparse.Namespace) -> None:
    """Shows what the command line asks for."""
    models = both(given)

    def ask(problems: list[Problem]) -> list["pd.DataFrame"]:
        return [model.evaluate(problems, show_progress=False) for model in models()]

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
    parser = parser_of("tasks.commands.try_it", __doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--problem", metavar="TEXT", help="ask this and end")
    what.add_argument("--test", metavar="N", type=int, nargs="?", const=1, help="draw N test problems (1)")
    add_models(parser)
    given = parser.parse_args(arguments)
    if given.test is not None and given.test < 1:
        parser.error(f"argument --test: expected a number from 1, found {given.test}")
    return exit_code("try_it", lambda: run(given))


if __name__ == "__main__":
    sys.exit(main())
