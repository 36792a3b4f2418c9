"""The report: one HTML page that needs nothing but itself.

Model text is untrusted and goes through the template's escaping; only our own SVG and CSS do not.
"""

from collections.abc import Sequence
from functools import partial

import yaml
from markupsafe import Markup

from score_core.config.schema import Config
from score_core.report import plots
from score_core.report.comparison import compare, transitions
from score_core.report.inputs import Inputs
from score_core.report.samples import choose_samples
from score_core.report.style import palette
from score_core.report.tables import label_tables, monitor_rows, parameter_rows
from score_core.report.templates import FOLDER, render

CURVES = (
    ("reward", "Reward", "mean reward", "Mean raw reward of the sampled attempts, before any shaping."),
    ("kl", "Distance from the base model", "KL, nats an attempt", "KL divergence from the base model."),
    ("entropy", "Entropy", "nats a token", "Entropy of the next token. At zero, exploration has ended."),
    ("grad_norm", "Gradient norm", "norm", "Before clipping."),
    # Of a policy that judges itself.
    (
        "judge_agreement",
        "The judge beside the verifier",
        "share",
        "Of right answers beside wrong ones, those that the policy prefers. Half is chance.",
    ),
    (
        "judge_first",
        "Wins of the answer shown first",
        "share",
        "Of verdicts that can be read. Half, if its place does not count.",
    ),
    (
        "judge_position",
        "Verdicts by place alone",
        "share",
        "Of pairs judged in both orders, those in which the same place won twice.",
    ),
    ("judge_unread", "Verdicts that cannot be read", "share", "They count for nobody."),
)


def render_page(inputs: Inputs, config: Config, versions: Sequence[tuple[str, str]]) -> str:
    """The whole page as HTML; equal inputs give equal text."""
    attempts, base, final = inputs.attempts, inputs.base.generations, inputs.final.generations
    places = plots.kept_at(inputs)
    curves = [row for row in CURVES if any(plots.columns_of(stage, row[0]) for stage in inputs.training)]
    draws: dict[str, tuple[str, plots.Draw]] = {}
    if inputs.training:
        draws["accuracy"] = "Accuracy over training", plots.accuracy_over_training
        draws["delta"] = "Delta over training", plots.delta_over_training
    for quantity, title, label, _ in curves:
        draw = partial(plots.training_curve, quantity=quantity, label=label)
        draws[quantity] = f"{title} over training", draw
    spans = sorted({2, attempts})  # from attempt 1 to each of these
    for after in spans:
        draw = partial(plots.transition_bars, after=after)
        draws[f"transitions{after}"] = f"Transitions from attempt 1 to attempt {after}", draw
    if all(model.metrics.get("budgets") for model in (inputs.base, inputs.final)):
        draws["votes"] = "Accuracy by number of answers", plots.votes
    return render(
        "page.html.j2",
        inputs,
        config,
        css=Markup((FOLDER / "page.css").read_text("utf-8")),
        palette=palette(len(inputs.models)),
        paired=[(t, compare(base, final, t)) for t in range(1, attempts + 1)],
        placed=[model.label for model in inputs.models if model.name in places],
        spans=[(t, [transitions(model.generations, t) for model in inputs.models]) for t in spans],
        monitors=monitor_rows(inputs),
        by_label=label_tables(inputs),
        figures={
            name: Markup(plots.as_svg(name, title, draw, inputs)) for name, (title, draw) in draws.items()
        },
        curves=curves,
        samples=choose_samples(final, attempts, config.report.samples),
        # Some systems publish a mean reward. Where right answers alone are paid it is the accuracy again.
        paid=[model for model in inputs.models if model.metrics.get("reward_t2") is not None]
        if any(
            model.metrics.get(f"reward_t{t}") not in (None, model.metrics[f"accuracy_t{t}"])
            for model in inputs.models
            for t in (1, 2)
        )
        else [],
        published=yaml.safe_load((FOLDER / "published.yaml").read_text("utf-8")),
        parameters=parameter_rows(config),
        versions=versions,
    )
