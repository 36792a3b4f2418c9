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

from score_core.config.parsing import load_config, load_runtime
from score_core.errors import UserError
from score_core.problems import Problem, read_problems
from score_core.report.visible import visible

if TYPE_CHECKING:
    import pandas as pd

# Heading, folder, and the stage that makes it.
MODELS = (
    ("base model", Path("models/base"), "prepare_base_model"),
    ("trained model", Path("models/stage2"), "train_stage2"),
)
DATA = Path("data/prepared")
WIDTH = 80
COLUMN = 38  # two columns and four spaces between them

Row = Mapping[str, Any]
Ask = Callable[[Path, list[Problem]], "pd.DataFrame"]


def side_by_side(problem: Problem, rows: list[Row]) -> str:
    """Each model's attempts at one problem, in two columns of an 80-column terminal.

    Args:
        problem: without references no verdict is shown.
        rows: for each of `MODELS`, its row of generations.
    """
    lines = [*_wrapped(f"Problem  {problem.problem}", WIDTH)]
    if problem.answer:
        lines += _wrapped(f"Answer   {problem.answer}", WIDTH)
    lines += ["", _columns([name for name, _, _ in MODELS]), _columns(["-" * COLUMN] * len(rows))]
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
    tables = [ask(folder, problems).to_dict("records") for _, folder, _ in MODELS]
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


def check_models() -> None:
    """Says which stage to run where a model is missing."""
    for _, folder, stage in MODELS:
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError(
                f"{folder}: no model here; run `make repro`, or `dvc repro {stage}`, which makes it."
            )


def run(given: argparse.Namespace, ask: Ask) -> None:
    """Shows what the command line asks for."""
    if given.problem is not None:
        show([typed(given.problem)], ask)
    elif given.test is not None:
        problems = read_problems(DATA, "test")
        # Drawn anew each time: this is for looking around, and no result depends on it.
        show(random.sample(problems, min(given.test, len(problems))), ask)
    else:
        known = (DATA / "test.parquet").is_file()
        converse(ask, read_problems(DATA, "test")[0].problem if known else None)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.commands.try_it", description=__doc__.splitlines()[0]
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--problem", metavar="TEXT", help="ask this and end")
    what.add_argument("--test", metavar="N", type=_count, nargs="?", const=1, help="draw N test problems (1)")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameters (params.yaml)")
    parser.add_argument("--runtime", type=Path, default=Path("runtime.yaml"), help="(runtime.yaml)")
    given = parser.parse_args(arguments)
    try:
        config, runtime = load_config(given.params), load_runtime(given.runtime)
        check_models()
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars would stand between the answers
        from score_core.evaluation.evaluate import Evaluator  # loads torch

        loaded = cache(lambda folder: Evaluator(folder, config, runtime))
        run(given, lambda folder, problems: loaded(folder).evaluate(problems, show_progress=False))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 130
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
