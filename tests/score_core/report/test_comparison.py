"""The exact test against sums of the binomial distribution written out, and pairs against counting."""

from fractions import Fraction
from itertools import product
from math import comb

import pandas as pd
import pytest

from score_core.report.comparison import compare, mcnemar_exact, transitions


@pytest.mark.parametrize(("gained", "lost"), [*product(range(7), repeat=2), (30, 12), (400, 380)])
def test_mcnemar_is_twice_the_smaller_tail(gained, lost):
    n = gained + lost
    tail = sum(Fraction(comb(n, k), 2**n) for k in range(min(gained, lost) + 1))
    assert mcnemar_exact(gained, lost) == pytest.approx(float(min(1, 2 * tail)), rel=1e-12)


def test_mcnemar_survives_many_problems():
    assert mcnemar_exact(0, 5000) == 0.0
    assert mcnemar_exact(2500, 2500) == 1.0


def test_pairs_are_counted_problem_by_problem():
    first = pd.DataFrame({"correct_t2": [True, True, False, False, False]})
    second = pd.DataFrame({"correct_t2": [True, False, True, True, False]})
    pair = compare(first, second, attempt=2)
    assert (pair.n, pair.gained, pair.lost) == (5, 2, 1)
    assert pair.difference == pytest.approx(0.2)
    middle = (2.5 - 1.5) / 7  # Agresti and Min's: half a problem more in each of the four cells
    half = 1.959964 * (((2.5 + 1.5) / 7 - middle**2) / 7) ** 0.5
    assert (pair.low, pair.high) == pytest.approx((middle - half, middle + half))


def test_transitions_are_shares_of_all_problems():
    frame = pd.DataFrame({"correct_t1": [True, True, False, False], "correct_t3": [True, False, True, True]})
    shares = transitions(frame, 3)
    assert {name: share.count for name, share in shares.items()} == {
        "right → right": 1,
        "wrong → right": 2,
        "right → wrong": 1,
        "wrong → wrong": 0,
    }
    assert shares["wrong → right"].value == 0.5
    assert all(share.low <= share.value <= share.high for share in shares.values())
