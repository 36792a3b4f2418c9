"""Draws the README's picture from the last run: `python -m benchmarks.readme_figure`.

Accuracy over training, and what becomes of answers between the two attempts; on white, as PNG.
"""

import argparse
import sys
from pathlib import Path

from score_core.report.inputs import read_inputs
from score_core.report.plots import write_png
from tasks import report
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.pipeline import read_pipeline


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("benchmarks.readme_figure", __doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/result.png"), help="(docs/result.png)")
    output = parser.parse_args(arguments).output
    shown = argparse.ArgumentParser()
    report.add_arguments(shown)
    given = shown.parse_args(read_pipeline()["report"]["cmd"].split()[3:])
    return exit_code("readme_figure", lambda: write_png(output, read_inputs(given.evaluated, given.trained)))


if __name__ == "__main__":
    sys.exit(main())
