"""Returns, weights, KL terms and the loss against plain loops; splitting a step changes nothing."""

import math

import pytest
import torch

from score_core.rl.logprobs import add_token_scoring, score
from score_core.rl.objective import (
    Objective,
    kl_penalties,
    kl_term,
    policy_loss,
    stage_one,
    stage_two,
    token_weights,
)
from score_core.rollout.trajectories import Trajectories, assemble
from tests.score_core.rl.distributions import score_as_reference

AGGREGATIONS = ("sequence_sum", "sequence_mean", "token_mean", "constant")


def test_shaped_rewards_of_the_paper():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    returns = stage_two(2, beta1=0.01, alpha=10.0, gamma=0.0).returns(rewards)
    assert returns[:, 1].tolist() == [1.0, 11.0, -10.0, 0.0]
    assert returns[:, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    returns = stage_one(2, beta1=0.01, beta2=0.1).returns(rewards)
    assert returns.tolist() == [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(("alpha", "gamma"), [(0.0, 0.0), (10.0, 0.0), (0.5, 1.0), (10.0, 1.0), (3.0, 0.2)])
def test_gamma_pays_the_first_attempt_a_share_of_the_second(alpha, gamma):
    r1, r2 = torch.rand(2, 50, dtype=torch.float64)
    returns = stage_two(2, 0.0, alpha=alpha, gamma=gamma).returns(torch.stack([r1, r2], dim=1))
    torch.testing.assert_close(returns[:, 0], r1 * (1 - gamma * alpha) + gamma * (1 + alpha) * r2)
    torch.testing.assert_close(returns[:, 1], r2 + alpha * (r2 - r1))


@pytest.mark.parametrize("attempts", [2, 3, 5])
def test_returns_of_any_number_of_attempts(attempts):
    rewards = torch.rand(7, attempts, dtype=torch.float64)
    weight = tuple(torch.rand(attempts).tolist())
    objective = Objective(weight, (0.0,) * attempts, alpha=1.7, gamma=0.3)
    before = rewards.clone()
    found = objective.returns(rewards)
    for n in range(7):
        own = [
            weight[t] * rewards[n, t] + (1.7 * (rewards[n, t] - rewards[n, t - 1]) if t else 0)
            for t in range(attempts)
        ]
        for t in range(attempts):
            expected = sum(0.3 ** (s - t) * own[s] for s in range(t, attempts))
            assert found[n, t] == pytest.approx(float(expected))
    assert torch.equal(rewards, before), "the rewards must not be changed in place"


def test_stages_by_name():
    assert stage_one(2, beta1=0.01, beta2=0.1) == Objective((0.0, 1.0), (0.1, 0.01))
    assert stage_one(3, beta1=0.01, beta2=0.1) == Objective((0.0, 0.0, 1.0), (0.1, 0.1, 0.01))
    assert stage_two(3, 0.01, 10.0, 0.5) == Objective((1.0, 1.0, 1.0), (0.01, 0.01, 0.01), 10.0, 0.5)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_token_weights(aggregation):
    lengths = torch.tensor([[3, 1], [2, 6], [4, 4], [1, 2]])
    trained = torch.tensor([[True, True], [False, True], [True, True], [True, False]])
    found = token_weights(aggregation, lengths, trained, longest=6)
    for t in range(2):
        rows = [n for n in range(4) if trained[n, t]]
        for n in range(4):
            expected = {
                "sequence_sum": 1 / len(rows),
                "sequence_mean": 1 / len(rows) / int(lengths[n, t]),
                "token_mean": 1 / sum(int(lengths[m, t]) for m in rows),
                "constant": 1 / len(rows) / 6,
            }[aggregation]
            assert found[n, t] == pytest.approx(expected if trained[n, t] else 0.0)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_turn_weighs_the_same_whatever_happens_in_the_other(aggregation):
    lengths, trained = torch.tensor([[3, 2], [5, 4]]), torch.ones(2, 2, dtype=torch.bool)
    short = token_weights(aggregation, lengths, trained, longest=100)
    long = token_weights(aggregation, lengths * torch.tensor([1, 20]), trained, longest=100)
    assert torch.equal(short[:, 0], long[:, 0])


def test_a_turn_nobody_is_trained_on_weighs_nothing():
    lengths, trained = torch.tensor([[3, 2], [5, 4]]), torch.tensor([[False, True], [False, True]])
    for aggregation in AGGREGATIONS:
        weights = token_weights(aggregation, lengths, trained, longest=8)
        assert weights[:, 0].tolist() == [0.0, 0.0]
        assert (weights[:, 1] > 0).all()


def test_kl_terms():
    logp = torch.tensor([-0.2, -1.5, -3.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.9, -1.5, -2.0], dtype=torch.float64)
    d = [0.7, 0.0, -1.0]
    expected = {
        "k2_in_loss": ([x * x / 2 for x in d], d),
        "k3_in_loss": ([math.exp(-x) - 1 + x for x in d], [1 - math.exp(-x) for x in d]),
    }
    for estimator, (values, slopes) in expected.items():
        found = kl_term(estimator, logp, reference, None)
        (slope,) = torch.autograd.grad(found.sum(), logp)
        torch.testing.assert_close(found.detach(), torch.tensor(values, dtype=torch.float64))
        torch.testing.assert_close(slope, torch.tensor(slopes, dtype=torch.float64))
        assert found[1] == 0.0, "exactly zero where both agree"
    assert kl_term("exact", logp, reference, logp) is logp


def test_kl_penalties_are_numbers_per_turn():
    objective = stage_one(2, beta1=0.5, beta2=2.0)
    logp = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    reference = torch.tensor([[-1.5, -1.0], [-3.0, -8.0]])
    found = kl_penalties(objective, logp, reference)
    assert found.tolist() == [[1.0, -0.5], [0.0, 2.0]]
    assert not found.requires_grad


def test_policy_loss_against_loops():
    torch.manual_seed(0)
    logp, kl = torch.randn(2, 9, dtype=torch.float64).requires_grad_().unbind()
    advantage, beta, weight = torch.randn(3, 9, dtype=torch.float64)
    for kl_or_none in (kl, None):
        loss = policy_loss(logp, kl_or_none, advantage, beta, weight)
        expected = sum(
            weight[p] * (-advantage[p] * logp[p] + (beta[p] * kl[p] if kl_or_none is not None else 0))
            for p in range(9)
        )
        torch.testing.assert_close(loss, expected)
    slope_logp, slope_kl = torch.autograd.grad(policy_loss(logp, kl, advantage, beta, weight), (logp, kl))
    torch.testing.assert_close(slope_logp, -weight * advantage)
    torch.testing.assert_close(slope_kl, weight * beta)


# ------------------------------------------------------------- a step's gradient, on a real model


def ragged(count: int = 6) -> Trajectories:
    """Dialogues of two attempts, every piece of its own length."""
    generator = torch.Generator().manual_seed(3)

    def ids(least: int, most: int) -> list[int]:
        size = int(torch.randint(least, most + 1, (1,), generator=generator))
        return torch.randint(2, 20, (size,), generator=generator).tolist()

    rows = [((ids(2, 6), 0), (ids(1, 5), 1), (ids(3, 3), 0), (ids(1, 7), 2)) for _ in range(count)]
    return assemble(rows, [[False, False]] * count, pad_id=0)


def step_loss(model, reference, trajectories, rows, estimator, aggregation, advantage_NT, trained_NT):
    """The share of the whole step's loss that `rows` contribute; weights are those of the step."""
    objective = stage_one(2, beta1=0.05, beta2=0.3)
    weight_NT = token_weights(aggregation, trajectories.lengths_NT, trained_NT, longest=7)
    part = trajectories.select(rows)
    turn_P = part.attempt_NL[part.attempt_NL > 0]
    row_P = torch.repeat_interleave(torch.tensor(rows), part.lengths_NT.sum(1))

    def at(value_NT: torch.Tensor) -> torch.Tensor:
        return value_NT[row_P, turn_P - 1]

    with torch.no_grad():
        ref, distributions = score_as_reference(reference, part, 1.0)
    own = score(model, part, 1.0, reference=distributions)
    kl_P = kl_term(estimator, own.logp_P, ref.logp_P, own.kl_P)
    beta_P = torch.tensor(objective.kl_weight)[turn_P - 1]
    return policy_loss(own.logp_P, kl_P, at(advantage_NT), beta_P, at(weight_NT))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", ["exact", "k2_in_loss", "k3_in_loss"])
def test_micro_batches_and_order_leave_the_gradient_unchanged(make_model, aggregation, estimator):
    model, reference = make_model("qwen2", seed=0), make_model("qwen2", seed=1)
    add_token_scoring(model)
    add_token_scoring(reference)
    trajectories = ragged()
    torch.manual_seed(0)
    advantage_NT = torch.randn(6, 2)
    trained_NT = torch.ones(6, 2, dtype=torch.bool)
    trained_NT[4, 0] = False

    def gradient(micro_batches: list[list[int]]) -> torch.Tensor:
        model.zero_grad()
        for rows in micro_batches:
            step_loss(
                model, reference, trajectories, rows, estimator, aggregation, advantage_NT, trained_NT
            ).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradient([[0, 1, 2, 3, 4, 5]])
    assert whole.norm() > 0.1
    for micro_batches in ([[3, 0, 5, 1, 4, 2]], [[0], [1], [2], [3], [4], [5]], [[5, 2], [0, 4, 3], [1]]):
        difference = gradient(micro_batches) - whole
        assert difference.norm() < 1e-5 * whole.norm()
