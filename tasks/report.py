"""The report stage: `python -m tasks.report`.

Reads metrics/, generations/ and the training curves; writes reports/index.html and
reports/model_card.md.
"""

from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.runner.command_line import run_stage

OUTPUTS = (Path("reports/index.html"), Path("reports/model_card.md"))


def run(config: Config, runtime: Runtime) -> None:
    """Writes the page and the model card, or neither."""
    # Drawing needs matplotlib and pandas, which take their time to import.
    from score_core.files import replacing
    from score_core.report.card import render_card
    from score_core.report.inputs import read_inputs
    from score_core.report.page import render_page
    from score_core.report.provenance import provenance

    root = Path()
    inputs = read_inputs(root)
    page = render_page(inputs, config, provenance(root))
    card = render_card(inputs, config, root)
    for output, text in zip(OUTPUTS, (page, card), strict=True):
        with replacing(root / output) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage("report", run, OUTPUTS)
