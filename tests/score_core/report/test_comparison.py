"""The exact test against sums of the binomial distribution written out, and pairs against counting."""

from fractions import Fraction
from itertools import product
from math import comb
from statistics import NormalDist

import pandas as pd
import pytest

from score_core.report.comparison import compare, mcnemar_exact, normal_test, transitions


@pytest.mark.parametrize(("gained", "lost"), [*product(range(7), repeat=2), (30, 12), (400, 380)])
def test_mcnemar_is_twice_the_smaller_tail(gained, lost):
    n = gained + lost
    tail = sum(Fraction(comb(n, k), 2**n) for k in range(min(gained, lost) + 1))
    assert mcnemar_exact(gained, lost) == pytest.approx(float(min(1, 2 * tail)), rel=1e-12)


def test_mcnemar_survives_many_problems():
    assert mcnemar_exact(0, 5000) == 0.0
    assert mcnemar_exact(2500, 2500) == 1.0


def test_pairs_are_counted_problem_by_problem():
    first = pd.DataFrame({"id": list("abcde"), "correct_t2": [True, True, False, False, False]})
    second = pd.DataFrame({"id": list("abcde"), "correct_t2": [True, False, True, True, False]})
    pair = compare(first, second, attempt=2)
    assert (pair.n, pair.gained, pair.lost) == (5, 2, 1)
    assert pair.difference == pytest.approx(0.2)
    middle = (2.5 - 1.5) / 7  # Agresti and Min's: half a problem more in each of the four cells
    half = 1.959964 * (((2.5 + 1.5) / 7 - middle**2) / 7) ** 0.5
    assert (pair.low, pair.high) == pytest.approx((middle - half, middle + half))


def test_transitions_are_shares_of_all_problems():
    right = {"correct_t1": [True, True, False, False], "correct_t3": [True, False, True, True]}
    frame = pd.DataFrame({"id": list("abcd"), **right})
    shares = transitions(frame, 3)
    assert {name: share.count for name, share in shares.items()} == {
        "right → right": 1,
        "wrong → right": 2,
        "right → wrong": 1,
        "wrong → wrong": 0,
    }
    assert shares["wrong → right"].value == 0.5
    assert all(share.low <= share.value <= share.high for share in shares.values())


def test_several_samples_of_a_problem_are_one_piece_of_evidence():
    ids = [name for name in "abcdefghij" for _ in range(8)]
    first = pd.DataFrame({"id": ids, "correct_t1": [False] * 80})
    second = pd.DataFrame({"id": ids, "correct_t1": [name in "abcd" for name in ids]})
    pair = compare(first, second, attempt=1)
    once = compare(first[::8], second[::8], attempt=1)
    assert (pair.n, pair.gained, pair.difference) == (80, 32, once.difference)
    assert (pair.low, pair.high) == pytest.approx((once.low, once.high))
    # McNemar of 32 to 0 would say 5e-10. A mean of 0.4 with the deviation of four ones and six zeros:
    z = 0.4 / ((4 * 0.6**2 + 6 * 0.4**2) / 9 / 10) ** 0.5
    assert pair.p_value == pytest.approx(2 * NormalDist().cdf(-z))


def test_differences_that_never_vary_need_no_test():
    assert normal_test(pd.Series([0.0] * 5)) == 1.0
    assert normal_test(pd.Series([0.25] * 5)) == 0.0
