"""The report: one HTML page that needs nothing but itself.

Model text is untrusted and goes through the template's escaping; only our own SVG and CSS do not.
"""

from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from score_core.config.schema import Config
from score_core.report import plots, wording
from score_core.report.comparison import compare, transitions
from score_core.report.inputs import Inputs
from score_core.report.labels import TRANSITIONS
from score_core.report.provenance import Provenance
from score_core.report.published import GROUPS
from score_core.report.samples import choose_samples
from score_core.report.style import palette
from score_core.report.tables import monitor_rows, result_rows

FOLDER = Path(__file__).parent
CURVES = (
    ("reward", "Reward", "mean reward", "Mean raw reward of the sampled attempts, before any shaping."),
    ("kl", "Distance from the base model", "KL, nats an attempt", "KL divergence from the base model."),
    (
        "entropy",
        "Entropy",
        "nats a token",
        "Entropy of the next token. At zero, nothing is explored any more.",
    ),
    ("grad_norm", "Gradient norm", "norm", "Before clipping."),
)


def render_page(inputs: Inputs, config: Config, provenance: Provenance) -> str:
    """The whole page as HTML; equal inputs give equal text."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=wording.percent, points=wording.points, p_value=wording.p_value)
    attempts, places = inputs.attempts, plots.kept_at(inputs)
    return environment.get_template("page.html.j2").render(
        config=config,
        inputs=inputs,
        css=Markup((FOLDER / "page.css").read_text()),
        palette=palette(len(inputs.models)),
        headline=wording.headline(inputs),
        model_name=wording.model_name(config),
        data_name=wording.data_name(config),
        decoding=wording.decoding(config),
        score=wording.is_score(inputs, config),
        methods=wording.methods(inputs, config),
        transitions=TRANSITIONS,
        results=result_rows(inputs),
        paired=[
            (t, compare(inputs.base.generations, inputs.final.generations, t)) for t in range(1, attempts + 1)
        ],
        spans=[(before, after, _shares(inputs, before, after)) for before, after in _spans(attempts)],
        monitors=monitor_rows(inputs),
        figures=_figures(inputs),
        curves=CURVES if inputs.training else (),
        samples=choose_samples(inputs.final.generations, attempts, config.report.samples),
        placed=[model.label for model in inputs.models if model.name in places],
        published=GROUPS,
        parameters=wording.flat_parameters(config),
        provenance=provenance,
    )


def _spans(attempts: int) -> list[tuple[int, int]]:
    """Between which attempts transitions are shown: the first two, and the first and the last."""
    return [(1, 2)] if attempts == 2 else [(1, 2), (1, attempts)]


def _shares(inputs: Inputs, before: int, after: int) -> list[tuple[str, list[Any]]]:
    by_model = [transitions(model.generations, before, after) for model in inputs.models]
    return [(name, [shares[name] for shares in by_model]) for name in by_model[0]]


def _figures(inputs: Inputs) -> dict[str, Markup]:
    draws: dict[str, tuple[str, plots.Draw]] = {}
    if inputs.training:
        draws["accuracy"] = "Accuracy over training", partial(plots.accuracy_over_training, inputs=inputs)
        draws["delta"] = "Delta over training", partial(plots.delta_over_training, inputs=inputs)
        for quantity, title, label, _ in CURVES:
            draws[quantity] = (
                f"{title} over training",
                partial(plots.training_curve, inputs=inputs, quantity=quantity, label=label),
            )
    for before, after in _spans(inputs.attempts):
        draws[f"transitions{after}"] = (
            f"Transitions from attempt {before} to attempt {after}",
            partial(plots.transition_bars, inputs=inputs, before=before, after=after),
        )
    count = len(inputs.models)
    return {name: Markup(plots.as_svg(name, title, draw, count)) for name, (title, draw) in draws.items()}
