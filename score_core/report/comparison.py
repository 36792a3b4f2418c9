"""Statistics that need the single answers: transitions, and models compared on the same problems."""

from dataclasses import dataclass

import pandas as pd

from score_core.evaluation.metrics import paired, wilson
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
        n: problems both were asked.
        gained: problems that only the second model has right.
        lost: problems that only the first model has right.
        difference: `(gained - lost) / n`, the difference of the accuracies.
        low, high: its paired 95 % interval.
        p_value: McNemar's exact test, two-sided: chance alone splits `gained + lost` evenly.
    """

    n: int
    gained: int
    lost: int
    difference: float
    low: float
    high: float
    p_value: float


def transitions(generations: pd.DataFrame, after: int) -> dict[str, Share]:
    """What became of the first answers by attempt `after`, as shares of all problems."""
    n = len(generations)
    first, last = generations["correct_t1"], generations[f"correct_t{after}"]
    shares = {}
    for (a, b), name in OUTCOMES.items():
        count = int(((first == a) & (last == b)).sum())
        shares[name] = Share(count / n, *wilson(count / n, n), count)
    return shares


def compare(first: pd.DataFrame, second: pd.DataFrame, attempt: int) -> Paired:
    """Compares two models at one attempt on the same problems, row by row."""
    before, after = first[f"correct_t{attempt}"], second[f"correct_t{attempt}"]
    n, gained, lost = len(before), int((~before & after).sum()), int((before & ~after).sum())
    low, high = paired(gained / n, lost / n, n)
    return Paired(n, gained, lost, (gained - lost) / n, low, high, mcnemar_exact(gained, lost))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of `gained` against `lost` under Binomial(gained + lost, 1/2)."""
    n = gained + lost
    term = tail = 1  # C(n, 0), then the sum of C(n, k) up to min(gained, lost), in exact integers
    for k in range(min(gained, lost)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)
