"""The report: one HTML page that needs nothing but itself.

Model text is untrusted and goes through the template's escaping; only our own SVG and CSS do not.
"""

from functools import partial
from typing import Any

from markupsafe import Markup

from score_core.config.schema import Config
from score_core.report import plots, wording
from score_core.report.comparison import compare, transitions
from score_core.report.inputs import Inputs
from score_core.report.provenance import Provenance
from score_core.report.published import GROUPS
from score_core.report.samples import choose_samples
from score_core.report.style import palette
from score_core.report.tables import monitor_rows
from score_core.report.templates import FOLDER, render

CURVES = (
    ("reward", "Reward", "mean reward", "Mean raw reward of the sampled attempts, before any shaping."),
    ("kl", "Distance from the base model", "KL, nats an attempt", "KL divergence from the base model."),
    ("entropy", "Entropy", "nats a token", "Entropy of the next token. At zero, exploration has ended."),
    ("grad_norm", "Gradient norm", "norm", "Before clipping."),
)


def render_page(inputs: Inputs, config: Config, provenance: Provenance) -> str:
    """The whole page as HTML; equal inputs give equal text."""
    attempts, base, final = inputs.attempts, inputs.base.generations, inputs.final.generations
    places = plots.kept_at(inputs)
    return render(
        "page.html.j2",
        inputs,
        config,
        css=Markup((FOLDER / "page.css").read_text()),
        palette=palette(len(inputs.models)),
        paired=[(t, compare(base, final, t)) for t in range(1, attempts + 1)],
        placed=[model.label for model in inputs.models if model.name in places],
        spans=[(before, after, _shares(inputs, before, after)) for before, after in _spans(attempts)],
        monitors=monitor_rows(inputs),
        figures=_figures(inputs),
        curves=CURVES if inputs.training else (),
        samples=choose_samples(final, attempts, config.report.samples),
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
