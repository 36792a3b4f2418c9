"""What more samples bring at test time: many first attempts, or fewer of which each is corrected.

Section 6.3 of the paper: with a budget of B answers, either B first attempts in parallel, or B / 2 first
attempts each followed by one correction; the most frequent answer counts.
"""

import math

import numpy as np
import pandas as pd

from score_core.evaluation.metrics import Z95


def budgets(generations: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Accuracy of the majority by number of answers; nothing of an evaluation without samples.

    Of S samples a problem the sets of the first B, the next B, ... are votes of their own, whose mean is
    taken. Answers that read alike are one; those that cannot be read have no vote; between equally frequent
    ones the earliest counts. "0.5" and "1/2" are two answers here.

    Args:
        generations: one row a dialogue, with `sample`, as `score_core.evaluation.evaluate` makes it.

    Returns:
        For each B = 2, 4, 8, ... up to S: `parallel`, `sequential` and `gain`, which is the difference of
        the two on the same problems; and with `_ci95` half the width of their 95 % intervals over problems.
    """
    if "sample" not in generations or "correct_t2" not in generations:
        return {}
    samples = int(generations["sample"].max())
    by_problem = [rows for _, rows in generations.sort_values("sample").groupby("id")]
    found = {}
    for budget in (2**power for power in range(1, int(math.log2(samples)) + 1)):
        parallel = np.array([_accuracy(rows, 1, budget) for rows in by_problem])
        sequential = np.array([_accuracy(rows, 2, budget // 2) for rows in by_problem])
        figures = {"parallel": parallel, "sequential": sequential, "gain": sequential - parallel}
        found[str(budget)] = {
            **{name: float(values.mean()) for name, values in figures.items()},
            **{f"{name}_ci95": _half_width(values) for name, values in figures.items()},
        }
    return found


def _accuracy(rows: pd.DataFrame, attempt: int, voters: int) -> float:
    """The share of a problem's sets of `voters` samples whose majority is right."""
    answers, correct = rows[f"extracted_t{attempt}"].tolist(), rows[f"correct_t{attempt}"].tolist()
    starts = range(0, len(rows) - voters + 1, voters)
    sets = [range(start, start + voters) for start in starts]
    return float(np.mean([_majority_is_right(answers, correct, members) for members in sets]))


def _majority_is_right(answers: list[str | None], correct: list[bool], members: range) -> bool:
    votes: dict[str, list[int]] = {}
    for at in members:
        answer = answers[at]
        if isinstance(answer, str):
            votes.setdefault(" ".join(answer.split()).casefold(), []).append(at)
    if not votes:
        return False
    # Python's max takes the first of equals, and a dict keeps the order in which answers came.
    return bool(correct[max(votes.values(), key=len)[0]])


def _half_width(values: np.ndarray) -> float:
    return float(Z95 * values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 1.0
