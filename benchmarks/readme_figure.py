"""Draws the README's picture from the last run: `python -m benchmarks.readme_figure`.

Accuracy over training, and what becomes of answers between the two attempts; on white, as PNG.
"""

import argparse
import sys
from pathlib import Path

import yaml

from score_core.errors import UserError
from tasks.report import add_arguments


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme_figure", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--output", type=Path, default=Path("docs/result.png"), help="(docs/result.png)")
    given = parser.parse_args(arguments)
    report = argparse.ArgumentParser()
    add_arguments(report)
    stages = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text())["stages"]
    made = report.parse_args(stages["report"]["cmd"].split()[3:])
    from score_core.report.inputs import read_inputs
    from score_core.report.plots import write_png

    try:
        write_png(given.output, read_inputs(made.evaluated, made.trained))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
