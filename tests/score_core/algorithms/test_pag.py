"""PAG's credit, on steps written down by hand, and what it says where no verdict can be read."""

import logging
from typing import Any

import pytest
import torch

from score_core.algorithms import make_algorithm
from score_core.errors import UserError
from score_core.rl.algorithm import Algorithm
from tests.configs import config
from tests.score_core.algorithms.steps import judged

# First attempt, verdict, what stands at the end; with the tokens of each.
REWARDS = [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
LENGTHS = [[2, 1, 0], [2, 1, 4], [2, 1, 0], [2, 1, 3]]


def method(**settings: Any) -> Algorithm:
    return make_algorithm(config(pag=settings).stage("pag"))


def test_each_turn_is_paid_by_itself_against_others_that_took_it() -> None:
    pag = method(baseline_later="leave_one_out", beta1=0.25)
    assert pag.kl_weight == (0.25, 0.25, 0.25)
    assert (pag.attempts, pag.turns, pag.longest) == (2, 2, 2)
    credit = pag.credit(judged(REWARDS, lengths=LENGTHS))
    advantage = credit.advantage_MS
    torch.testing.assert_close(advantage[:, 0], torch.tensor([2 / 3, -2 / 3, -2 / 3, 2 / 3]))
    torch.testing.assert_close(advantage[:, 1], torch.tensor([2 / 3, 2 / 3, -2 / 3, -2 / 3]))
    # Of the second and the fourth only, each against the other.
    assert advantage[:, 2].tolist() == [0, 1, 0, -1]


def test_who_revises_alone_has_no_baseline() -> None:
    alone = judged(REWARDS[:2], lengths=LENGTHS[:2])
    for later in ("leave_one_out", "leave_one_out_given_first"):
        assert method(baseline_later=later).credit(alone).advantage_MS[:, 2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("aggregation", "weights"),
    [
        ("sequence_sum", [1 / 4, 1 / 4]),
        ("sequence_mean", [1 / 4 / 4, 1 / 4 / 3]),
        ("token_mean", [1 / 2 / 7, 1 / 2 / 7]),
        ("constant", [1 / 4 / 5, 1 / 4 / 5]),
    ],
)
def test_revisions_are_averaged_over_all_trajectories(aggregation: str, weights: list[float]) -> None:
    credit = method(length_aggregation=aggregation).credit(judged(REWARDS, lengths=LENGTHS))
    assert credit.weight_MS[[1, 3], 2].tolist() == pytest.approx(weights)


def test_two_attempts_and_no_other_number() -> None:
    with pytest.raises(UserError, match=r"pag.attempts: input should be 2, found 3"):
        method(attempts=3)


def test_verdicts_that_nobody_can_read_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert method().assess({"validation_accuracy_v1": 0.1}) == {}
        assert not caplog.text
        assert method().assess({"validation_accuracy_v1": 0.0}) == {}
    assert "most likely none could be read" in caplog.text
