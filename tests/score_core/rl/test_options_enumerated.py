"""Options of the objective beyond the paper: each one's expected gradient, by enumeration."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from score_core.algorithms import make_algorithm
from score_core.algorithms.policy_gradient import PolicyGradient
from score_core.errors import UserError
from score_core.rl.algorithm import Algorithm, Judged
from score_core.rl.gap import attempt_ratios
from score_core.rl.objective import policy_loss, stage_two
from tests.configs import config
from tests.score_core.rl.enumeration import (
    Toy,
    estimate,
    gradient,
    kl_of_positions,
    per_turn,
    rewarded,
    sequence_kl,
    token_kl,
)
from tests.score_core.rl.test_gradient_enumerated import assert_same, stage_two_return

BASELINES = ("leave_one_out", "leave_one_out_given_first", "none")


def stage(name: str, **settings: Any) -> Any:
    """The algorithm of a section."""
    return make_algorithm(config(**{name: settings}).stage(name))


@pytest.mark.parametrize("later", BASELINES)
def test_mend_and_keep_weigh_the_second_reward_by_the_first(later):
    toy = Toy(vocabulary=2)
    objective = stage("stage2", alpha=1.5, mend=4.0, keep=0.5, beta1=0.2).objective

    def value(r1: float, r2: float) -> tuple[float, float]:
        return r1, r2 * (4.0 * (1 - r1) + 0.5 * r1) + 1.5 * (r2 - r1)

    expected = gradient(rewarded(toy, value) - sequence_kl(toy, (0.2, 0.2)), [toy])
    assert_same(estimate([toy], objective, 2, "leave_one_out", later, "k1_in_reward"), expected)


def test_equal_weights_are_alpha_in_another_guise():
    """With gamma = 0, mend = keep = 1 + a has the gradient of alpha = a."""
    toy = Toy(vocabulary=2)
    paper, guise = stage_two(2, 0.0, 3.0, 0.0), replace(stage_two(2, 0.0, 0.0, 0.0), mend=4.0, keep=4.0)
    found, expected = (estimate([toy], one, 2, "leave_one_out", "leave_one_out") for one in (guise, paper))
    assert_same(found, expected)


@pytest.mark.parametrize("later", BASELINES)
def test_repeating_a_wrong_answer_has_a_price(later):
    toy = Toy(vocabulary=2)
    objective = stage("stage2", alpha=1.0, repeat=0.7).objective
    r1_n, r2_n = toy.reward_nT.T
    same_n = toy.said_nT[:, 0] == toy.said_nT[:, 1]
    assert 0 < same_n.sum() < len(same_n)
    second_n = r2_n + 1.0 * (r2_n - r1_n) - 0.7 * (1 - r1_n) * same_n
    expected = gradient(per_turn(toy, torch.stack([r1_n, second_n], dim=1)), [toy])
    assert_same(estimate([toy], objective, 2, "leave_one_out", later), expected)
    free = gradient(rewarded(toy, stage_two_return(1.0)), [toy])
    assert (free[1] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("later", BASELINES)
def test_the_stage_one_of_other_programs_rewards_the_first_attempt_too(later):
    toy = Toy(vocabulary=2)
    objective = stage("stage1", reward_others=1.0, beta1=0.1, beta2=0.1).objective
    expected = gradient(rewarded(toy, lambda *r: r) - sequence_kl(toy, (0.1, 0.1)), [toy])
    assert_same(estimate([toy], objective, 2, "leave_one_out", later, "k1_in_reward"), expected)


def test_single_turn_is_the_gradient_of_the_first_reward():
    toy = Toy(attempts=1)
    objective = stage("single_turn", beta1=0.3).objective
    expected = gradient(rewarded(toy, lambda r1: (r1,)) - sequence_kl(toy, (0.3,)), [toy])
    assert_same(
        estimate([toy], objective, 2, "leave_one_out", "leave_one_out_given_first", "k1_in_reward"), expected
    )


def whole_steps(toy: Toy, algorithm: Algorithm, samples: int) -> tuple[list[Tensor], float]:
    """The expected ascent direction of an algorithm's whole credit: other dialogues, ratios and weights.

    And the variance of its second attempts' part.
    """
    answers = len(toy.reward_S)
    logp_nTL, exact_nTL = toy.logp(toy.tables), kl_of_positions(toy)
    sampled_nTL = logp_nTL.detach()
    lengths_nT = toy.mask_nTL.sum(-1)
    total, square = [torch.zeros_like(table) for table in toy.tables], 0.0
    for step in itertools.product(range(len(toy.said_nT)), repeat=samples):
        rows = torch.tensor(step)
        credit = algorithm.credit(
            Judged(
                group_N=torch.zeros(samples),
                rewards_NT=toy.reward_nT[rows],
                correct_NT=toy.correct_nT[rows],
                changed_NT=~toy.repeated_nT[rows],
                lengths_NT=lengths_nT[rows],
                sampled_NT=torch.ones(samples, 2, dtype=torch.bool),
                logp_NT=sampled_nTL[rows].sum(-1),
                reference_logp_NT=None,
                longest=2,
            )
        )
        source_MS = torch.arange(2 * samples).view(-1, 2) if credit.source_MS is None else credit.source_MS
        said_MS = toy.said_nT[rows].flatten()[source_MS]
        dialogue_M = said_MS[:, 0] * answers + said_MS[:, 1]
        assert toy.said_nT[dialogue_M].equal(said_MS)
        there_M2L = torch.stack([sampled_nTL[rows[source_MS[:, t] // 2], t] for t in (0, 1)], dim=1)
        mask = toy.mask_nTL[dialogue_M]
        row_P, column_P, _ = mask.nonzero(as_tuple=True)
        logp_P = logp_nTL[dialogue_M][mask]
        ratio_P = attempt_ratios(logp_P, there_M2L[mask], row_P, column_P, credit.ratio_cap or 1.0)
        loss = policy_loss(
            logp_P,
            exact_nTL[dialogue_M][mask],
            credit.advantage_MS[row_P, column_P],
            torch.tensor(algorithm.kl_weight, dtype=torch.float64)[column_P],
            credit.weight_MS[row_P, column_P] * ratio_P,
        )
        chance = sampled_nTL[rows].sum().exp()
        found = gradient(loss, [toy])
        total = [t - chance * g for t, g in zip(total, found, strict=True)]
        square += float(chance * found[1].square().sum())
    return total, square - float(total[1].square().sum())


@pytest.mark.parametrize(("samples", "later"), [(2, "leave_one_out"), (3, "leave_one_out_given_first")])
def test_recombination_without_its_cap_is_unbiased(samples, later):
    toy = Toy(vocabulary=2)
    settings = {"alpha": 2.0, "mend": 3.0, "beta1": 0.2, "samples_per_prompt": samples}
    algorithm = stage("stage2", recombine=1e9, baseline_later=later, **settings)

    def value(r1: float, r2: float) -> tuple[float, float]:
        return r1, r2 * (3.0 * (1 - r1) + r1) + 2.0 * (r2 - r1)

    expected = gradient(rewarded(toy, value) - token_kl(toy, (0.2, 0.2)), [toy])
    assert_same(whole_steps(toy, algorithm, samples)[0], expected)


def test_a_cap_on_the_ratio_trades_that_for_a_bound():
    toy = Toy(vocabulary=2)
    capped, _ = whole_steps(toy, stage("stage2", recombine=1.0, samples_per_prompt=2), 2)
    exact, _ = whole_steps(toy, stage("stage2", recombine=1e9, samples_per_prompt=2), 2)
    assert_same(capped[:1], exact[:1])  # first attempts are as they were sampled
    assert (capped[1] - exact[1]).abs().max() > 1e-3


def test_recombination_takes_variance_out_where_attempts_are_as_likely_elsewhere():
    """Of a policy whose second attempt does not look at the first, every pair is a sample as good."""
    toy = Toy(vocabulary=2)
    toy.tables[1] = toy.tables[1].detach()[:1].expand_as(toy.tables[1]).clone().requires_grad_()
    settings: dict[str, Any] = {"alpha": 3.0, "beta1": 0.0, "samples_per_prompt": 3}
    expected = gradient(rewarded(toy, stage_two_return(3.0)), [toy])
    variances = []
    for cap in (None, 1e9):
        mean, variance = whole_steps(toy, stage("stage2", recombine=cap, **settings), 3)
        assert_same(mean, expected)
        variances.append(variance)
    assert variances[1] < variances[0]


def test_options_are_off_by_default():
    for name in ("stage1", "stage2"):
        algorithm = stage(name)
        plain = PolicyGradient(algorithm.settings, algorithm.objective)
        assert algorithm.dialogues == plain.dialogues == 1
        assert (algorithm.objective.mend, algorithm.objective.keep, algorithm.objective.repeat) == (1, 1, 0)
    assert stage("stage1").objective.reward_weight == (0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"recombine": 2.0, "attempts": 3}, "needs attempts: 2"),
        (
            {"recombine": 2.0, "samples_per_prompt": 1, "baseline": "none", "baseline_later": "none"},
            "at least 2, found 2 and 1",
        ),
        ({"recombine": 2.0, "kl_estimator": "k1_in_reward"}, "use exact"),
        ({"recombine": 2.0, "repeat": 0.1}, "no repeat"),
        ({"recombine": 2.0, "gamma": 0.1, "alpha": 0.0}, "no gamma"),
        ({"recombine": 0.5}, "recombine: .*greater than or equal to 1"),
        ({"gamma": 0.5, "alpha": 1.0, "mend": 3.0}, r"\(alpha \+ mend - keep\) \* gamma is 1.5"),
        ({"gamma": 0.5, "alpha": 3.0, "mend": 0.0}, r"alpha \* gamma is 1.5"),
    ],
)
def test_combinations_that_cannot_mean_what_they_say_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        stage("stage2", **settings)
