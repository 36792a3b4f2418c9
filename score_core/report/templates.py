"""Filling in the templates of the page and of the card."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from score_core.config.schema import Config
from score_core.report import wording
from score_core.report.inputs import Inputs
from score_core.report.labels import TRANSITIONS
from score_core.report.tables import result_rows

FOLDER = Path(__file__).parent


def render(template: str, inputs: Inputs, config: Config, **own: Any) -> str:
    """`template` filled in with what both show and with its `own` values.

    Values are escaped where the result is HTML. Markdown takes them as they are: no model text goes into it.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in ("percent", "points", "interval")}
    return environment.get_template(template).render(
        config=config,
        inputs=inputs,
        model_name=wording.model_name(config),
        data_name=wording.data_name(config),
        score=wording.is_score(inputs, config),
        results=result_rows(
            inputs.attempts, repaired=all("repair_accuracy" in model.metrics for model in inputs.models)
        ),
        transitions=TRANSITIONS,
        **own,
    )
