"""What an evaluation is summarised to: accuracies, transitions, intervals and monitors of collapse.

Accuracy is the share of problems that the verifier accepts; the training reward is kept apart.
"""

import math
from typing import Any

import pandas as pd
from rapidfuzz.distance import Levenshtein

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent problems."""
    centre = share + Z95**2 / (2 * count)
    spread = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    # At 0 and 1 rounding could put the bound on the wrong side of the share.
    return min(share, max(0.0, (centre - spread) / scale)), max(share, min(1.0, (centre + spread) / scale))


def paired(improved: float, worsened: float, count: float) -> tuple[float, float]:
    """95 % interval of `improved - worsened`, a difference of two accuracies on the same problems.

    Agresti and Min's (Statistics in Medicine 24, 2005): Wald's, SE^2 = (p_ic + p_ci - (p_ic - p_ci)^2) / n,
    after half a problem is added to each of the four outcomes. So it has a width where no answer changes.
    """
    more, less = (share * count + 0.5 for share in (improved, worsened))
    delta, moved = (more - less) / (count + 2), (more + less) / (count + 2)
    spread = Z95 * math.sqrt((moved - delta**2) / (count + 2))
    return max(-1.0, delta - spread), min(1.0, delta + spread)


def effective_count(values: pd.Series, ids: pd.Series) -> float:
    """How many independent draws the mean of `values` is worth; between the numbers of problems and of rows.

    Kish's effective sample size (Survey Sampling, 1965): samples of one problem are alike, so a mean over
    them has the variance of the problems' means. With one row a problem it is their number.

    Args:
        values: one a row.
        ids: of the rows' problems.
    """
    means = values.astype(float).groupby(ids).mean()
    problems, rows = len(means), len(values)
    total, between = float(values.astype(float).var(ddof=0)), float(means.var(ddof=0))
    if problems == rows or total == 0:
        return problems
    return rows if between == 0 else min(rows, max(problems, problems * total / between))


def attempts_in(generations: pd.DataFrame) -> int:
    """How many attempts a table of generations holds."""
    return sum(column.startswith("correct_t") for column in generations.columns)


def summarise(generations: pd.DataFrame) -> dict[str, Any]:
    """The metrics of one evaluation, flat and unrounded, shares in [0, 1].

    Args:
        generations: one row a dialogue, as `score_core.evaluation.evaluate` makes it.

    Returns:
        `n` problems, `attempts`, and `samples` of each problem if several, over which all is averaged; for
        each attempt t `accuracy_t{t}`, `reward_t{t}`, `unparsable_t{t}`, `truncated_t{t}` (shares) and
        `length_t{t}` (mean tokens); `delta`, `delta_i_to_c`, `delta_c_to_i` from attempt 1 to 2, and with
        suffix `_t{t}` from t - 1 to each later t; `changed_t{t}` and `edit_distance_ratio_t{t}` against the
        attempt before; where the model verifies, `accuracy_v{t}` and the like of its verdict on attempt t,
        and `revised_t{t}`, the share of dialogues in which attempt t took place; `ci95`; and `by`, for each
        column of labels and each of its values the number of problems and the accuracies, if there are any.
    """
    rows, attempts, ids = len(generations), attempts_in(generations), generations["id"]
    count = ids.nunique()
    metrics: dict[str, Any] = {"n": count, "attempts": attempts}
    if rows != count:
        metrics["samples"] = rows // count
    ci95: dict[str, tuple[float, float]] = {}

    def share_of(values: pd.Series) -> tuple[float, tuple[float, float]]:
        share = float(values.mean())
        return share, wilson(share, effective_count(values, ids))

    for attempt in range(1, attempts + 1):
        key = f"accuracy_t{attempt}"
        metrics[key], ci95[key] = share_of(generations[f"correct_t{attempt}"])
    for attempt in range(2, attempts + 1):
        suffix = "" if attempt == 2 else f"_t{attempt}"
        before, after = (generations[f"correct_t{t}"].astype(bool) for t in (attempt - 1, attempt))
        (improved, gain_ci95), (worsened, loss_ci95) = share_of(~before & after), share_of(before & ~after)
        metrics[f"delta{suffix}"] = improved - worsened
        metrics[f"delta_i_to_c{suffix}"], metrics[f"delta_c_to_i{suffix}"] = improved, worsened
        difference = metrics[f"accuracy_t{attempt}"] - metrics[f"accuracy_t{attempt - 1}"]
        assert math.isclose(difference, improved - worsened, abs_tol=1e-9), "delta = i->c - c->i must hold"
        ci95[f"delta{suffix}"] = paired(
            improved, worsened, effective_count(after.astype(int) - before.astype(int), ids)
        )
        ci95[f"delta_i_to_c{suffix}"], ci95[f"delta_c_to_i{suffix}"] = gain_ci95, loss_ci95
    for attempt in range(1, attempts + 1):
        metrics |= _monitors(generations, attempt)
    for attempt in range(1, attempts):
        if f"correct_v{attempt}" in generations:
            key, revised = f"accuracy_v{attempt}", generations[f"tokens_t{attempt + 1}"] > 0
            metrics[key], ci95[key] = share_of(generations[f"correct_v{attempt}"])
            metrics |= _said(generations, f"_v{attempt}")
            metrics[f"revised_t{attempt + 1}"] = float(revised.mean())
    metrics["ci95"] = {key: list(bounds) for key, bounds in ci95.items()}
    labels = [column for column in generations.columns if column.startswith("by_")]
    if labels:
        metrics["by"] = {column.removeprefix("by_"): _by(generations, column, attempts) for column in labels}
    return metrics


def _by(generations: pd.DataFrame, column: str, attempts: int) -> dict[str, dict[str, float]]:
    """The accuracies at each value of a column, values in order."""
    return {
        str(value): {"n": rows["id"].nunique()}
        | {f"accuracy_t{t}": float(rows[f"correct_t{t}"].mean()) for t in range(1, attempts + 1)}
        for value, rows in generations.groupby(column)
    }


def _monitors(generations: pd.DataFrame, attempt: int) -> dict[str, float]:
    suffix = f"_t{attempt}"
    monitors = {f"reward{suffix}": float(generations[f"reward{suffix}"].mean()), **_said(generations, suffix)}
    if attempt > 1:
        before, after = (generations[f"extracted_t{t}"] for t in (attempt - 1, attempt))
        same = (before == after) | (before.isna() & after.isna())
        monitors[f"changed{suffix}"] = float((~same).mean())
        texts = zip(generations[f"text_t{attempt - 1}"], generations[f"text{suffix}"], strict=True)
        monitors[f"edit_distance_ratio{suffix}"] = sum(edit_ratio(a, b) for a, b in texts) / len(generations)
    return monitors


def _said(generations: pd.DataFrame, suffix: str) -> dict[str, float]:
    return {
        f"unparsable{suffix}": float(generations[f"extracted{suffix}"].isna().mean()),
        f"truncated{suffix}": float(generations[f"truncated{suffix}"].mean()),
        f"length{suffix}": float(generations[f"tokens{suffix}"].mean()),
    }


def edit_ratio(first: str, second: str) -> float:
    """Levenshtein distance over the length of both texts; 0 where they are equal."""
    return Levenshtein.distance(first, second) / max(len(first) + len(second), 1)
