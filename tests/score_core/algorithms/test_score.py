"""SCoRe's two stages: what their settings make of rewards, KL and phases."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from score_core.algorithms import make_algorithm
from tests.configs import config
from tests.score_core.algorithms.steps import judged


def test_stage_one_rewards_the_last_attempt_and_holds_the_others() -> None:
    stage = make_algorithm(
        config(training={"beta1": 0.25, "attempts": 3}, stage1={"beta2": 0.5}).stage("stage1")
    )
    assert stage.kl_weight == (0.5, 0.5, 0.25)
    credit = stage.credit(judged([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert credit.returns_MS.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert credit.advantage_MS[:, :2].abs().sum() == 0


def test_stage_two_pays_every_attempt_and_progress() -> None:
    settings = {"baseline": "none", "baseline_later": "none", "beta1": 0.25}
    stage = make_algorithm(config(training=settings, stage2={"alpha": 10.0}).stage("stage2"))
    assert stage.kl_weight == (0.25, 0.25)
    credit = stage.credit(judged([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    assert credit.returns_MS.tolist() == [[1, 1], [0, 11], [1, -10], [0, 0]]
    assert credit.advantage_MS.equal(credit.returns_MS)
    assert credit.weight_MS.equal(torch.full((4, 2), 0.25))
    given = stage.credit(judged([[1.0, 1.0], [0.0, 1.0]], given=True))
    assert given.weight_MS[:, 0].sum() == 0 and given.advantage_MS[:, 0].abs().sum() == 0


def test_graded_rewards_leave_a_later_baseline_its_others() -> None:
    """No two first attempts earn the same; two are right and two are wrong."""
    stage = make_algorithm(config(stage2={"alpha": 0.0}).stage("stage2"))
    rewards = [[1.25, 1.0], [0.5, 0.25], [1.0, 2.0], [0.125, 0.75]]
    step = replace(judged(rewards), correct_NT=torch.tensor(rewards) >= 1)
    assert stage.settings.baseline_later == "leave_one_out_given_first"
    assert stage.credit(step).advantage_MS[:, 1].tolist() == [-1.0, -0.5, 1.0, 0.5]


def test_three_attempts_take_two_phases_of_stage_one() -> None:
    stage = make_algorithm(config(training={"attempts": 3}).stage("stage1"))
    assert [(phase.attempts, len(phase.kl_weight)) for phase in stage.phases()] == [(2, 2), (3, 3)]
    assert len(make_algorithm(config(training={"attempts": 3}).stage("stage2")).phases()) == 1


def test_adaptive_beta2_moves_towards_its_target_and_is_resumed() -> None:
    adaptive = {"target_kl": 10.0, "horizon": 2.0}
    settings = config(stage1={"beta2": 1.0, "adaptive_beta2": adaptive}).stage("stage1")
    stage = make_algorithm(settings)
    seen = [{"kl_t1": kl, "kl_t2": 10.0} for kl in (0.0, 0.0, 100.0, 10.5, 10.0)]
    in_force = [stage.observe(figures)["beta2"] for figures in seen]
    # The error is clipped to 0.2 either way, and then taken as it is.
    assert in_force == pytest.approx([1.0, 0.9, 0.81, 0.81 * 1.1, 0.81 * 1.1 * 1.025])
    resumed = make_algorithm(settings)
    resumed.load_state_dict(stage.state_dict())
    assert resumed.kl_weight == stage.kl_weight
    assert make_algorithm(config().stage("stage1")).observe({"kl_t1": 3.0}) == {}


def test_adaptive_beta2_is_that_of_every_attempt_but_the_last() -> None:
    adaptive = {"target_kl": 10.0, "horizon": 2.0}
    stage1 = {"beta2": 1.0, "adaptive_beta2": adaptive, "beta1": 0.01, "attempts": 3}
    stage = make_algorithm(config(stage1=stage1).stage("stage1"))
    stage.observe({"kl_t1": 0.0, "kl_t2": 10.0, "kl_t3": 10.0})
    assert stage.kl_weight == pytest.approx((0.9, 0.9, 0.01))


def test_a_resumed_moving_average_goes_on() -> None:
    """Through JSON, which makes text of numbers that are keys."""
    settings = config(training={"baseline": "moving_average", "baseline_later": "moving_average"})
    stage, resumed, fresh = (make_algorithm(settings.stage("stage2")) for _ in range(3))
    step = judged([[1.0, 1.0], [0.0, 1.0]])
    stage.credit(step)
    resumed.load_state_dict(json.loads(json.dumps(stage.state_dict())))
    following = stage.credit(step).advantage_MS
    assert resumed.credit(step).advantage_MS.equal(following)
    assert not fresh.credit(step).advantage_MS.equal(following)


def test_a_stage_one_that_has_not_taken_off_says_so(caplog: pytest.LogCaptureFixture) -> None:
    stage = make_algorithm(config(stage1={"takeoff_delta": 0.05}).stage("stage1"))
    with caplog.at_level(logging.WARNING):
        assert stage.assess({"validation_delta": 0.05}) == {"took_off": True}
        assert not caplog.text
        assert stage.assess({"validation_delta": 0.04}) == {"took_off": False}
    assert "has not taken off" in caplog.text
