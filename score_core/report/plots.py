"""The report's figures, drawn by matplotlib.

A figure function draws on an axes it is given. `as_svg` makes one an inline SVG whose colours are
CSS variables, so that one drawing serves light and dark pages, and `as_png` joins two for a README.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from score_core.files import replacing
from score_core.report.comparison import TRANSITIONS, transitions
from score_core.report.inputs import Inputs, Trained, attempts_in

# Name: (on a light page, on a dark page). No two light colours are equal: they are the SVG's hooks.
PALETTE = {
    "ink": ("#1d2126", "#e4e7eb"),
    "muted": ("#5d6873", "#98a3af"),
    "grid": ("#dfe3e8", "#2f363f"),
    "attempt1": ("#c9621a", "#f2a35e"),
    "attempt2": ("#1c5fb0", "#74b0f7"),
    "attempt3": ("#2c8a57", "#68cf98"),
    "attempt4": ("#8b45b0", "#cb93ee"),
    "attempt5": ("#b12f66", "#f38bb6"),
    "attempt6": ("#786900", "#d8c850"),
    "attempt7": ("#007b88", "#5fd1dd"),
    "attempt8": ("#5a5ad8", "#a7a7ff"),
    "attempt9": ("#8a4a1c", "#d8a27c"),
    "attempt10": ("#46515c", "#bac4ce"),
    "base": ("#a3adb7", "#6c7783"),
    "stage1": ("#86b2e0", "#4a7db2"),
    "final": ("#1b4f90", "#9accff"),
    "gain": ("#23864c", "#5fcb8a"),
    "loss": ("#c0392f", "#f2857b"),
}
COLOUR = {name: light for name, (light, _) in PALETTE.items()}

STYLE = {
    "font.family": "DejaVu Sans",  # the one that matplotlib brings along, so layouts agree everywhere
    "font.size": 8.5,
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["muted"],
    "axes.facecolor": "none",
    "axes.labelcolor": COLOUR["muted"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOUR["muted"],
    "ytick.color": COLOUR["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.7,
    "legend.columnspacing": 1.3,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's own typeface
    "svg.hashsalt": "score",  # equal figures get equal ids
}
WIDTH, HEIGHT = 5.2, 3.25  # inches; a figure fills half a page's width, or a telephone's

Draw = Callable[[Axes], None]


def accuracy_over_training(axes: Axes, inputs: Inputs) -> None:
    """Validation accuracy of every attempt over both stages; on the test split, the base model's
    accuracy as dotted lines and all models' as circles with their intervals.
    """
    first, second = inputs.training
    attempts = range(1, inputs.attempts + 1)
    for t in attempts:
        colour = COLOUR[f"attempt{t}"]
        for stage, start in _stages(inputs):
            if f"accuracy_t{t}" in stage.validation:
                label = f"attempt {t}" if start == 0 else None
                _line(axes, stage, start, f"accuracy_t{t}", label, color=colour)
        # The attempts' dots alternate, so that where lines coincide all their colours show.
        dots = (2.6 * t, (1.3, 2.6 * len(attempts) - 1.3))
        axes.axhline(
            100 * inputs.base.metrics[f"accuracy_t{t}"],
            color=colour,
            linestyle=dots,
            linewidth=1.5,
            label=f"base, {t}",
            gid=f"base-attempt{t}",
        )
    places = (0, first.summary["selected_step"], first.summary["steps"] + second.summary["selected_step"])
    for model, place in zip(inputs.models, places, strict=True):
        for t in attempts:
            low, high = model.interval(f"accuracy_t{t}")
            value = model.metrics[f"accuracy_t{t}"]
            axes.errorbar(
                place,
                100 * value,
                yerr=[[100 * max(value - low, 0)], [100 * max(high - value, 0)]],
                color=COLOUR[f"attempt{t}"],
                marker="o",
                markersize=4.5,
                markerfacecolor="none",
                markeredgewidth=1.2,
                elinewidth=1.2,
                clip_on=False,
                zorder=4,
            )
    _percent_axis(axes, "accuracy, %")
    _step_axis(axes, inputs)
    _legend(axes)


def delta_over_training(axes: Axes, inputs: Inputs) -> None:
    """Validation delta over both stages with the two flows it is the difference of."""
    # The flows are broad and pale under the thin delta, which often coincides with one of them.
    lines = (
        ("delta", {"color": COLOUR["ink"], "zorder": 3}, "Δ"),
        ("delta_i_to_c", {"color": COLOUR["gain"], "linewidth": 4, "alpha": 0.5}, "wrong → right"),
        ("delta_c_to_i", {"color": COLOUR["loss"], "linewidth": 4, "alpha": 0.5}, "right → wrong"),
    )
    for column, style, label in lines:
        for stage, start in _stages(inputs):
            _line(axes, stage, start, column, label if start == 0 else None, **style)
    base = 100 * inputs.base.metrics["delta"]
    axes.axhline(base, gid="base-delta", color=COLOUR["ink"], linestyle=":", linewidth=1.4, label="base, Δ")
    axes.set_ylabel("points of all problems")
    _step_axis(axes, inputs)
    _legend(axes)


def transition_bars(axes: Axes, inputs: Inputs, before: int, after: int) -> None:
    """What became of the answers from one attempt to another, by model, with 95 % intervals."""
    width = 0.27
    for at, model in enumerate(inputs.models):
        shares = transitions(model.generations, before, after)
        for place, share in enumerate(shares.values()):
            x, value = place + (at - 1) * width, 100 * share.value
            axes.bar(
                x,
                value,
                width=0.9 * width,
                color=COLOUR[model.name],
                label=model.label if place == 0 else None,
            )
            low, high = 100 * (share.value - share.low), 100 * (share.high - share.value)
            axes.errorbar(
                x,
                value,
                yerr=[[max(low, 0)], [max(high, 0)]],
                color=COLOUR["ink"],
                elinewidth=0.9,
                capsize=1.8,
            )
            axes.annotate(
                f"{value:.1f}",
                (x, 100 * share.high),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=COLOUR["muted"],
            )
    axes.set_xticks(range(len(TRANSITIONS)), list(TRANSITIONS.values()))
    axes.tick_params(axis="x", length=0)
    for label in axes.get_xticklabels():
        label.set_color(COLOUR["ink"])
    _percent_axis(axes, "share of all problems, %")
    _legend(axes)


def training_curve(axes: Axes, inputs: Inputs, quantity: str, label: str) -> None:
    """A quantity of every training step, by attempt where it has attempts; the running mean on top."""
    for stage, start in _stages(inputs):
        columns = [f"{quantity}_t{t}" for t in attempts_in(stage.curve, quantity)] or [quantity]
        for column in columns:
            t = column.rpartition("_t")[2]
            colour = COLOUR[f"attempt{t}"] if t.isdigit() else COLOUR["ink"]
            name = f"attempt {t}" if t.isdigit() and start == 0 else None
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


def as_svg(name: str, title: str, draw: Draw) -> str:
    """One figure as an SVG element for an HTML page.

    Args:
        name: makes the element's ids unique on its page.
        title: what a screen reader says of it.
        draw: draws the figure on an axes.
    """
    buffer = io.StringIO()
    with _figure() as figure:
        draw(figure.add_subplot())
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
    for key, colour in COLOUR.items():
        svg = svg.replace(colour, f"var(--{key})")
    return svg.strip()


def write_png(target: Path, inputs: Inputs) -> None:
    """Accuracy over training and the transitions, side by side on white: the picture of a README."""
    with _figure(columns=2) as figure:
        left, right = figure.subplots(1, 2)
        accuracy_over_training(left, inputs)
        transition_bars(right, inputs, 1, 2)
        left.set_title("Accuracy over training (validation)", pad=26)
        right.set_title("Attempt 1 → attempt 2 (test)", pad=26)
        with replacing(target) as temporary:
            figure.savefig(temporary, format="png", dpi=160, facecolor="white", metadata={"Software": None})


@contextmanager
def _figure(columns: int = 1) -> Iterator[Figure]:
    # On top of the defaults, whatever a matplotlibrc of this machine says.
    with context(["default", STYLE]):
        yield Figure(figsize=(WIDTH * columns, HEIGHT), layout="constrained")


def _stages(inputs: Inputs) -> Iterator[tuple[Trained, int]]:
    """Both stages with the step at which each begins on their common axis."""
    first, second = inputs.training
    yield first, 0
    yield second, first.summary["steps"]


def _line(axes: Axes, stage: Trained, start: int, column: str, label: str | None, **style: Any) -> None:
    steps: pd.Series = start + stage.validation["step"]
    axes.plot(steps, 100 * stage.validation[column], label=label, **style)


def _step_axis(axes: Axes, inputs: Inputs) -> None:
    first, second = inputs.training
    boundary, end = first.summary["steps"], first.summary["steps"] + second.summary["steps"]
    axes.axvline(boundary, color=COLOUR["muted"], linewidth=0.8, zorder=1)
    for stage, place in ((first, boundary / 2), (second, (boundary + end) / 2)):
        axes.text(
            place,
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


def _percent_axis(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.margins(y=0.1)


def _legend(axes: Axes) -> None:
    handles, _ = axes.get_legend_handles_labels()
    columns = len(handles) if len(handles) <= 4 else min(len(handles) // 2, 5)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2)
