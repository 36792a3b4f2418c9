"""Makes the report on some models and their training, one HTML page, and the last model's card.

    python -m tasks.report --page reports/index.html --card reports/model_card.md \\
        --evaluated base metrics/base.json generations/base.parquet \\
        --trained stage1 metrics/train_stage1 \\
        --evaluated stage1 metrics/stage1.json generations/stage1.parquet

The other models are compared with the first, and the last is what came of the training. With no --trained
nothing was trained, and with one --evaluated nothing is compared.
"""

import argparse
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.runner.command_line import run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the report is on, in order, and where it goes."""
    parser.add_argument("--page", type=Path, required=True, metavar="FILE", help="HTML to write")
    parser.add_argument("--card", type=Path, required=True, metavar="FILE", help="Markdown to write")
    parser.add_argument(
        "--evaluated",
        nargs=3,
        action="append",
        required=True,
        metavar=("NAME", "METRICS", "GENERATIONS"),
        help="a model and the two files that tasks.evaluate wrote; for each model",
    )
    parser.add_argument(
        "--trained",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "METRICS"),
        help="a stage of params.yaml and the --metrics of its tasks.train; for each stage",
    )


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Writes the page and the model card, or neither."""
    # Drawing needs matplotlib and pandas, which take their time to import.
    from score_core.files import replacing
    from score_core.report.card import render_card
    from score_core.report.inputs import read_inputs
    from score_core.report.page import render_page
    from score_core.report.versions import installed_versions

    root = Path()
    inputs = read_inputs(given.evaluated, given.trained)
    page = render_page(inputs, config, installed_versions())
    card = render_card(inputs, config, root)
    for output, text in ((given.page, page), (given.card, card)):
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage("report", add_arguments, outputs=lambda given: [given.page, given.card], run=run)
