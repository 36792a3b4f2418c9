"""Differences of methods on the same seeds, paired by seed, with Student's interval over seeds.

A table has a row a seed and method, with columns `seed`, `method` and figures, which are shares.
"""

from typing import Any

import numpy as np
import pandas as pd
from mpmath import betainc, findroot

from score_core.report.wording import NONE


def paired(table: pd.DataFrame, method: str, control: str, figure: str) -> np.ndarray:
    """By how many points the method is above the control, for each seed that has both."""
    wide = table.pivot(index="seed", columns="method", values=figure)
    return (100 * (wide[method] - wide[control]).dropna()).to_numpy()


def with_interval(points: np.ndarray) -> str:
    """The mean of several seeds' points with its 95 % interval, of one seed without."""
    if not len(points):
        return NONE
    half = half_width(points)
    between = f" [{points.mean() - half:+.1f}, {points.mean() + half:+.1f}]" if len(points) > 1 else ""
    return f"{points.mean():+.1f}{between}"


def half_width(values: np.ndarray) -> float:
    """Half of the 95 % interval of a mean over seeds; 0 for one seed, which has none."""
    if len(values) < 2:
        return 0.0
    return float(student(len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def student(freedom: int) -> float:
    """Student's quantile of a two-sided 95 % interval (scipy has it, and would slow every stage's start)."""

    def beyond(t: float) -> Any:  # the mass of both tails
        return betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)

    return float(findroot(lambda t: beyond(t) - 0.05, (1.9, 13.0), solver="anderson"))
