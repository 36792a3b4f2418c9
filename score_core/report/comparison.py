"""Statistics that need the single answers: transitions, and models compared on the same problems."""

import math
from dataclasses import dataclass

import pandas as pd

from score_core.evaluation.metrics import effective_count, paired, wilson
from score_core.report.labels import OUTCOMES


@dataclass(frozen=True)
class Share:
    """A share of problems in [0, 1] with its 95 % interval, and the count it comes from."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Paired:
    """Two models' answers to the same problems at one attempt.

    Attributes:
        n: answers of either.
        gained: answers that only the second model has right.
        lost: answers that only the first model has right.
        difference: `(gained - lost) / n`, the difference of the accuracies.
        low, high: its paired 95 % interval.
        p_value: two-sided. McNemar's exact test: chance alone splits `gained + lost` evenly. With several
            samples a problem, which are alike, the normal test of the problems' mean differences.
    """

    n: int
    gained: int
    lost: int
    difference: float
    low: float
    high: float
    p_value: float


def transitions(generations: pd.DataFrame, after: int) -> dict[str, Share]:
    """What became of the first answers by attempt `after`, as shares of all problems' dialogues."""
    n = len(generations)
    first, last = generations["correct_t1"], generations[f"correct_t{after}"]
    shares = {}
    for (a, b), name in OUTCOMES.items():
        of_kind = (first == a) & (last == b)
        count = int(of_kind.sum())
        worth = effective_count(of_kind, generations["id"])
        shares[name] = Share(count / n, *wilson(count / n, worth), count)
    return shares


def compare(first: pd.DataFrame, second: pd.DataFrame, attempt: int) -> Paired:
    """Compares two models at one attempt on the same problems, row by row; rows of both are in one order."""
    before, after = first[f"correct_t{attempt}"], second[f"correct_t{attempt}"]
    n, gained, lost = len(before), int((~before & after).sum()), int((before & ~after).sum())
    moved, ids = after.astype(int) - before.astype(int), first["id"]
    low, high = paired(gained / n, lost / n, effective_count(moved, ids))
    once = ids.nunique() == n
    p_value = mcnemar_exact(gained, lost) if once else normal_test(moved.groupby(ids).mean())
    return Paired(n, gained, lost, (gained - lost) / n, low, high, p_value)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of `gained` against `lost` under Binomial(gained + lost, 1/2)."""
    n = gained + lost
    term = tail = 1  # C(n, 0), then the sum of C(n, k) up to min(gained, lost), in exact integers
    for k in range(min(gained, lost)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def normal_test(differences: pd.Series) -> float:
    """Two-sided p-value of a mean of independent differences under a mean of 0, for many of them."""
    mean, error = float(differences.mean()), float(differences.sem())
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return math.erfc(abs(mean) / error / math.sqrt(2))
