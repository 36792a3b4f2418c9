"""The figures of experiments/compare's page, as SVG on white."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.style import context

from benchmarks.arms import trained_methods
from benchmarks.paired import half_width, paired
from score_core.files import read_json, replacing
from score_core.report.style import COLOUR, STYLE
from score_core.report.wording import MINUS

COLUMNS = 4  # of the figure of curves
KINDS = {"parallel": "first attempts only", "sequential": "half as many, each corrected"}


def draw_all(here: Path, methods: dict[str, Any], table: pd.DataFrame, control: str) -> list[str]:
    """Draws what there are cells for; returns the files' names."""
    curves = {name: found for name in trained_methods(methods) if (found := validation(here, methods, name))}
    voted = {name: found for name in methods["voted"] if (found := votes(here, methods, name))}
    drawn = []
    with context(STYLE):
        for name, figure in (
            ("differences.svg", differences(table, methods, control)),
            ("curves.svg", curves_of(curves, methods) if curves else None),
            ("votes.svg", votes_of(voted, methods) if voted else None),
        ):
            if figure is not None:
                drawn.append(name)
                with replacing(here / name) as temporary:
                    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
                    figure.savefig(temporary, format="svg", facecolor="white", metadata=nothing)
    return drawn


def label_of(methods: dict[str, Any], name: str) -> str:
    """What a row of the table is called."""
    return str(methods["labels"].get(name, name))


def validation(here: Path, methods: dict[str, Any], name: str) -> list[pd.DataFrame]:
    """The validation curves of a method's seeds, those of Stage I before them where it comes before.

    `step` counts all steps of training; a method of several iterations has the curve of its last.
    """
    found = []
    for seed in methods["seeds"]:
        path = here / "curves" / f"{seed}-{name}_validation.csv"
        if not path.exists():
            continue
        curve = pd.read_csv(path)
        stage = read_json(here / "settings" / f"{name}.json", made_by="settings")["stage"]
        curve["step"] += stage["steps"] * (stage.get("iterations", 1) - 1)
        if name in methods["from_stage1"]:
            before = pd.read_csv(here / "curves" / f"{seed}-stage1_validation.csv")
            curve = pd.concat([before, curve.assign(step=curve["step"] + before["step"].max())])
        found.append(curve)
    return found


def curves_of(curves: dict[str, list[pd.DataFrame]], methods: dict[str, Any]) -> Figure:
    """Validation accuracy of both attempts over training, a panel a method: seeds thin, their mean thick."""
    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 1.9 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for (name, seeds), panel in zip(curves.items(), panels, strict=False):
        for attempt in (1, 2):
            lines = [100 * curve.groupby("step")[f"accuracy_t{attempt}"].last() for curve in seeds]
            colour = COLOUR[f"attempt{attempt}"]
            for line in lines:
                panel.plot(line.index, line, color=colour, linewidth=0.6, alpha=0.4)
            mean = pd.concat(lines, axis=1).mean(axis=1)
            panel.plot(mean.index, mean, color=colour, label=f"attempt {attempt}")
        panel.set_title(_wrapped(label_of(methods, name), 32), fontsize=8, fontweight="normal")
        panel.set_ylim(0, 100)
    for unused in panels:
        unused.set_visible(False)
    figure.supxlabel("training step", fontsize=8.5)
    figure.supylabel("validation accuracy, %", fontsize=8.5)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def differences(table: pd.DataFrame, methods: dict[str, Any], control: str) -> Figure | None:
    """By how many points each method's attempts are above the control's: seeds, mean and interval."""
    found = {
        name: [paired(table, name, control, f"accuracy_t{attempt}") for attempt in (1, 2)]
        for name in table["method"].unique()
        if name != control
    }
    found = {name: both for name, both in found.items() if len(both[0])}
    if not found:
        return None
    figure = Figure(figsize=(8.6, 0.32 * len(found) + 1.0), layout="constrained")
    for axes, attempt in zip(figure.subplots(1, 2, sharey=True), (1, 2), strict=True):
        colour = COLOUR[f"attempt{attempt}"]
        for row, both in enumerate(found.values()):
            points = both[attempt - 1]
            axes.plot(points, np.full(len(points), row), ".", color=colour, markersize=3, alpha=0.6)
            half = half_width(points)
            axes.errorbar(points.mean(), row, xerr=half, fmt="o", color=colour, capsize=2, elinewidth=1.2)
        axes.axvline(0, color=COLOUR["ink"], linewidth=0.8, zorder=1)
        axes.set_title(f"attempt {attempt}")
        axes.set_xlabel(f"points, method {MINUS} SCoRe")
        axes.grid(axis="x")
    axes.set_yticks(range(len(found)), [_wrapped(label_of(methods, name), 46) for name in found])
    axes.invert_yaxis()
    return figure


def votes(here: Path, methods: dict[str, Any], name: str) -> dict[int, pd.DataFrame]:
    """By seed, accuracy of the majority in percent: a row a number of answers, a column a kind."""
    paths = {seed: here / "metrics" / f"{seed}-{name}_voted.json" for seed in methods["seeds"]}
    return {
        seed: 100 * pd.DataFrame(read_json(path, made_by="evaluate_voted")["budgets"]).T.rename(index=int)
        for seed, path in paths.items()
        if path.exists()
    }


def votes_of(found: dict[str, dict[int, pd.DataFrame]], methods: dict[str, Any]) -> Figure:
    """Accuracy of the majority by number of answers, a panel a method: seeds thin, their mean thick."""
    figure = Figure(figsize=(2.9 * len(found), 2.9), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False).flat
    for panel, (name, seeds) in zip(panels, found.items(), strict=True):
        for attempt, (kind, label) in enumerate(KINDS.items(), start=1):
            colour = COLOUR[f"attempt{attempt}"]
            for one in seeds.values():
                panel.plot(one.index, one[kind], color=colour, linewidth=0.6, alpha=0.4)
            mean = sum(one[kind] for one in seeds.values()) / len(seeds)
            panel.plot(mean.index, mean, "o-", color=colour, markersize=3, label=label)
        panel.set_title(label_of(methods, name), fontsize=8, fontweight="normal")
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(mean.index))
        panel.xaxis.set_major_formatter("{x:.0f}")
    figure.supxlabel("answers a problem", fontsize=8.5)
    figure.supylabel("accuracy of the majority, %", fontsize=8.5)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
