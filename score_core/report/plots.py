"""The report's figures, drawn by matplotlib.

A figure function draws on an axes it is given. `as_svg` makes one an inline SVG whose colours are
CSS variables, so that one drawing serves light and dark pages, and `as_png` joins two for a README.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from score_core.files import replacing
from score_core.report.comparison import transitions
from score_core.report.inputs import Inputs, Trained
from score_core.report.labels import OUTCOMES, TRANSITIONS
from score_core.report.style import COLOUR, STYLE, palette

WIDTH, HEIGHT = 5.2, 3.25  # inches; a figure fills half a page's width, or a telephone's

Draw = Callable[[Axes, Inputs], None]


def accuracy_over_training(axes: Axes, inputs: Inputs) -> None:
    """Validation accuracy of every attempt over the stages; on the test split, the base model's
    accuracy as dotted lines and, as circles with their intervals, that of the models in `kept_at`.
    """
    places = kept_at(inputs)
    kept = [model for model in inputs.models if model.name in places]
    for t in range(1, inputs.attempts + 1):
        key, colour = f"accuracy_t{t}", COLOUR[f"attempt{t}"]
        _lines(axes, inputs, key, f"attempt {t}", color=colour)
        # The attempts' dots alternate, so that where lines coincide all their colours show.
        dots = (2.6 * t, (1.3, 2.6 * inputs.attempts - 1.3))
        _base_line(axes, inputs, key, f"{t}", gid=f"base-attempt{t}", color=colour, linestyle=dots)
        axes.errorbar(
            [places[model.name] for model in kept],
            [100 * model.metrics[key] for model in kept],
            _lengths([(model.metrics[key], *model.interval(key)) for model in kept]),
            fmt="o",
            color=colour,
            markeredgewidth=1.2,
            elinewidth=1.2,
            clip_on=False,
            zorder=4,
        )
    axes.set_ylabel("accuracy, %")
    _step_axis(axes, inputs)
    _legend(axes)


def delta_over_training(axes: Axes, inputs: Inputs) -> None:
    """Validation delta over the stages with the two flows it is the difference of."""
    # The flows are broad and pale under the thin delta, which often coincides with one of them.
    flow = {"linewidth": 4, "alpha": 0.5}
    for column, colour, style in (
        ("delta", "ink", {"zorder": 3}),
        ("delta_i_to_c", "gain", flow),
        ("delta_c_to_i", "loss", flow),
    ):
        _lines(axes, inputs, column, TRANSITIONS.get(column, "Δ"), color=COLOUR[colour], **style)
    _base_line(axes, inputs, "delta", "Δ", gid="base-delta", color=COLOUR["ink"], linestyle=":")
    axes.set_ylabel("points of all problems")
    _step_axis(axes, inputs)
    _legend(axes)


def transition_bars(axes: Axes, inputs: Inputs, after: int) -> None:
    """What became of the first answers by attempt `after`, by model, with 95 % intervals."""
    count = len(inputs.models)
    width, colours = 0.81 / count, palette(count)
    for at, model in enumerate(inputs.models):
        shares = transitions(model.generations, after).values()
        bars = axes.bar(
            [place + (at - (count - 1) / 2) * width for place in range(len(shares))],
            [100 * share.value for share in shares],
            0.9 * width,
            yerr=_lengths([(share.value, share.low, share.high) for share in shares]),
            error_kw={"ecolor": COLOUR["ink"], "elinewidth": 0.9, "capsize": 1.8},
            color=colours[f"model{at + 1}"][0],
            label=model.label,
        )
        axes.bar_label(
            bars, fmt="%.1f", padding=2, fontsize=7, color=COLOUR["muted"], rotation=90 if count > 3 else 0
        )
    axes.set_xticks(range(len(OUTCOMES)), list(OUTCOMES.values()))
    axes.tick_params(axis="x", length=0, labelcolor=COLOUR["ink"])
    axes.set_ylabel("share of all problems, %")
    axes.margins(y=0.1)
    _legend(axes)


def votes(axes: Axes, inputs: Inputs) -> None:
    """Accuracy of the majority by number of answers, all first attempts or half of them corrections."""
    for model, style in [(inputs.final, "-"), *([(inputs.base, "--")] if inputs.compared else [])]:
        found = model.metrics["budgets"]
        name = f"{model.label}, " if inputs.compared else ""
        for kind, attempt in (("parallel", 1), ("sequential", 2)):
            axes.errorbar(
                [int(budget) for budget in found],
                [100 * row[kind] for row in found.values()],
                [100 * row[f"{kind}_ci95"] for row in found.values()],
                label=f"{name}{kind}",
                color=COLOUR[f"attempt{attempt}"],
                linestyle=style,
                marker="o",
                markersize=3,
                elinewidth=0.9,
            )
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(budget) for budget in inputs.final.metrics["budgets"]])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("answers a problem")
    axes.set_ylabel("accuracy of the majority, %")
    _legend(axes, most=3)


def training_curve(axes: Axes, inputs: Inputs, quantity: str, label: str) -> None:
    """A quantity of every training step, by attempt where it has attempts; the running mean on top."""
    for stage, start in _stages(inputs):
        for column in sorted(columns_of(stage, quantity), key=len):  # attempt 10 comes behind attempt 9
            t = column.rpartition("_t")[2]
            colour = COLOUR[f"attempt{t}"] if t.isdigit() else COLOUR["ink"]
            name = f"attempt {t}" if t.isdigit() else None
            steps, values = start + stage.curve["step"], stage.curve[column]
            window = max(1, len(values) // 16)
            if window > 1:
                axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35)
                values = values.rolling(window, center=True, min_periods=1).mean()
            axes.plot(steps, values, color=colour, label=name)
    axes.set_ylabel(label)
    _step_axis(axes, inputs)
    if axes.dataLim.ymin >= 0:
        axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[1]:
        _legend(axes)


def as_svg(name: str, title: str, draw: Draw, inputs: Inputs) -> str:
    """One figure as an SVG element for an HTML page.

    Args:
        name: makes the element's ids unique on its page.
        title: what a screen reader says of it.
        draw: draws the figure on an axes.
    """
    buffer = io.StringIO()
    with _figure() as figure:
        draw(figure.add_subplot(), inputs)
        nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{title}">', svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'id="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    for key, (colour, _) in palette(len(inputs.models)).items():
        svg = svg.replace(colour, f"var(--{key})")
    return svg.strip()


def write_png(target: Path, inputs: Inputs) -> None:
    """Accuracy over training and the transitions, side by side on white: the picture of a README.

    Needs a stage of training.
    """
    with _figure(columns=2) as figure:
        left, right = figure.subplots(1, 2)
        accuracy_over_training(left, inputs)
        transition_bars(right, inputs, after=2)
        left.set_title("Accuracy over training (validation)", pad=26)
        right.set_title("Attempt 1 → attempt 2 (test)", pad=26)
        with replacing(target) as temporary:
            figure.savefig(temporary, format="png", dpi=160, facecolor="white", metadata={"Software": None})


@contextmanager
def _figure(columns: int = 1) -> Iterator[Figure]:
    with context(STYLE):
        yield Figure(figsize=(WIDTH * columns, HEIGHT), layout="constrained")


def columns_of(stage: Trained, quantity: str) -> list[str]:
    """The columns of a stage's curve that hold a quantity, of the whole step or of each attempt; or none."""
    return list(stage.curve.filter(regex=rf"^{quantity}(_t\d+)?$"))


def kept_at(inputs: Inputs) -> dict[str, int]:
    """Where on the stages' common axis a model's weights were kept, by its name.

    The first model is from before them and the last one from the last stage; one between is named
    after its stage, or is of none.
    """
    if not inputs.training:
        return {}
    kept = {stage.name: start + stage.summary["selected_step"] for stage, start in _stages(inputs)}
    between = {model.name: kept[model.name] for model in inputs.models if model.name in kept}
    return {inputs.base.name: 0, **between, inputs.final.name: [*kept.values()][-1]}


def _stages(inputs: Inputs) -> Iterator[tuple[Trained, int]]:
    """The stages with the step at which each begins on their common axis."""
    starts = accumulate((stage.summary["steps"] for stage in inputs.training), initial=0)
    return zip(inputs.training, starts, strict=False)  # the last start is the end


def _lines(axes: Axes, inputs: Inputs, column: str, label: str, **style: Any) -> None:
    for stage, start in _stages(inputs):
        if column in stage.validation:
            axes.plot(start + stage.validation["step"], 100 * stage.validation[column], label=label, **style)


def _base_line(axes: Axes, inputs: Inputs, key: str, label: str, **style: Any) -> None:
    if inputs.compared:
        value = 100 * inputs.base.metrics[key]
        axes.axhline(value, label=f"{inputs.base.name}, {label}", linewidth=1.5, **style)


def _lengths(shares: list[tuple[float, float, float]]) -> np.ndarray:
    """Error bars of (share, low, high), as matplotlib takes them: how far down and how far up, in percent."""
    share, low, high = 100 * np.transpose(shares)
    return np.clip([share - low, high - share], 0, None)


def _step_axis(axes: Axes, inputs: Inputs) -> None:
    end = 0
    for stage, start in _stages(inputs):
        end = start + stage.summary["steps"]
        if start > 0:
            axes.axvline(start, color=COLOUR["muted"], linewidth=0.8, zorder=1)
        axes.text(
            (start + end) / 2,
            0.985,
            stage.label,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=8,
            color=COLOUR["muted"],
        )
    axes.margins(y=0.14)
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlabel("training step")


def _legend(axes: Axes, most: int = 4) -> None:
    """Above the axes, in one row of up to `most` entries, or in several."""
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))  # the stages' lines have one entry together
    columns = len(entries) if len(entries) <= most else min(len(entries) // 2, 5)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2}
    axes.legend(entries.values(), entries.keys(), ncols=columns, **place)
