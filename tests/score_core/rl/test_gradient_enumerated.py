"""The estimator's expected gradient is the objective's, by enumeration (see `enumeration.py`)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from score_core.rl.objective import kl_term, stage_one, stage_two
from tests.score_core.rl.enumeration import Toy, estimate, gradient, rewarded, sequence_kl, token_kl


def stage_one_return(r1: float, r2: float) -> tuple[float, float]:
    return 0.0, r2


def stage_two_return(alpha: float, gamma: float = 0.0) -> Callable[[float, float], tuple[float, float]]:
    def value(r1: float, r2: float) -> tuple[float, float]:
        return r1 * (1 - gamma * alpha) + gamma * (1 + alpha) * r2, r2 + alpha * (r2 - r1)

    return value


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert max(float(e.abs().max()) for e in expected) > 1e-3, "a vanishing gradient proves nothing"
    for f, e in zip(found, expected, strict=True):
        # token_weights computes 1/N in float32.
        torch.testing.assert_close(f, e, rtol=2e-7, atol=1e-9)


STAGES = {
    "stage 1": (stage_one(2, beta1=0.3, beta2=0.8), stage_one_return),
    "stage 2, alpha 0": (stage_two(2, 0.3, alpha=0.0, gamma=0.0), stage_two_return(0.0)),
    "stage 2, alpha 10": (stage_two(2, 0.3, alpha=10.0, gamma=0.0), stage_two_return(10.0)),
    "stage 2, gamma": (stage_two(2, 0.3, alpha=2.0, gamma=0.4), stage_two_return(2.0, 0.4)),
}
stages = pytest.mark.parametrize(("objective", "value"), STAGES.values(), ids=STAGES.keys())


@stages
@pytest.mark.parametrize(
    ("baseline", "samples"),
    [("leave_one_out", 2), ("none", 1), ("none", 2), ("moving_average", 1), ("moving_average", 2)],
)
def test_unbiased_for_rewards_and_sequence_kl(objective, value, baseline, samples):
    toy = Toy()
    expected = gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    state = {1: 0.37, 2: -1.9}
    assert_same(estimate([toy], objective, samples, baseline, baseline, "k1_in_reward", state), expected)


def test_unbiased_with_three_samples():
    toy = Toy(vocabulary=2)
    objective, value = STAGES["stage 2, alpha 10"]
    expected = gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    found = estimate([toy], objective, 3, "leave_one_out", "leave_one_out", "k1_in_reward")
    assert_same(found, expected)


@pytest.mark.parametrize(("objective", "value"), [STAGES["stage 1"], STAGES["stage 2, gamma"]])
@pytest.mark.parametrize(
    ("prompts", "samples", "vocabulary", "length"),
    [(1, 3, 2, 2), (1, 2, 3, 2), (2, 2, 3, 1)],
    ids=["others of the group or nobody", "mostly nobody", "others of the group, of the batch, or nobody"],
)
def test_leave_one_out_given_first_is_unbiased(objective, value, prompts, samples, vocabulary, length):
    toys = [Toy(vocabulary, length, seed=seed) for seed in range(prompts)]
    assert len(toys[0].reward_S.unique()) == 3, "rewards are graded, and outcomes right or wrong"
    expected = [
        g
        for toy in toys
        for g in gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    ]
    found = estimate(toys, objective, samples, "leave_one_out", "leave_one_out_given_first", "k1_in_reward")
    assert_same(found, expected)


@pytest.mark.parametrize("samples", [2, 3])
def test_group_mean_shrinks_the_gradient_by_one_kth(samples):
    toy = Toy(vocabulary=2)
    objective, value = STAGES["stage 2, alpha 10"]
    exact = gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    found = estimate([toy], objective, samples, "group_mean", "group_mean", "k1_in_reward")
    assert_same(found, [(samples - 1) / samples * g for g in exact])


def test_standardising_cancels_alpha():
    """Leave-one-out scales attempt 2's gradient by exactly 1 + alpha; standardised, it is bounded."""
    toy = Toy()

    def size(baseline: str, alpha: float) -> float:
        objective = stage_two(2, 0.0, alpha=alpha, gamma=0.0)
        return float(estimate([toy], objective, 2, baseline, baseline)[1].norm())

    alphas = (0.0, 10.0, 1000.0)
    plain = [size("leave_one_out", alpha) for alpha in alphas]
    assert plain[1] / plain[0] == pytest.approx(11, rel=1e-6)
    assert plain[2] / plain[0] == pytest.approx(1001, rel=1e-6)
    standardised = [size("group_standardised", alpha) for alpha in alphas]
    assert standardised[1] / standardised[0] < 1.5
    assert standardised[2] / standardised[1] < 1.1
    # Biased: the direction itself is not the objective's.
    objective = stage_two(2, 0.0, alpha=10.0, gamma=0.0)
    found = estimate([toy], objective, 2, "group_standardised", "group_standardised")[1].flatten()
    exact = gradient(rewarded(toy, stage_two_return(10.0)), [toy])[1].flatten()
    assert torch.cosine_similarity(found, exact, dim=0) < 0.999


@pytest.mark.parametrize("estimator", ["exact", "k2_in_loss"])
def test_exact_and_k2_follow_the_reverse_kl_of_each_token(estimator):
    toy = Toy()
    objective, value = STAGES["stage 1"]
    expected = gradient(rewarded(toy, value) - token_kl(toy, objective.kl_weight), [toy])
    assert_same(estimate([toy], objective, 2, "leave_one_out", "leave_one_out", estimator), expected)
    # What they leave out: how a token changes which positions come after it.
    whole = gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    assert (whole[0] - expected[0]).abs().max() > 1e-3


def test_exact_and_k2_are_the_sequence_kl_where_answers_are_one_token():
    toy = Toy(vocabulary=4, length=1)
    objective, value = STAGES["stage 1"]
    expected = gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    for estimator in ("exact", "k2_in_loss", "k1_in_reward"):
        assert_same(estimate([toy], objective, 2, "leave_one_out", "leave_one_out", estimator), expected)


def test_k3_follows_the_forward_kl_of_each_token():
    toy = Toy()
    objective, value = STAGES["stage 1"]
    expected = gradient(rewarded(toy, value) - token_kl(toy, objective.kl_weight, forward=True), [toy])
    found = estimate([toy], objective, 2, "leave_one_out", "leave_one_out", "k3_in_loss")
    assert_same(found, expected)
    reverse = gradient(rewarded(toy, value) - token_kl(toy, objective.kl_weight), [toy])
    assert (reverse[0] - expected[0]).abs().max() > 1e-2


def test_k1_as_a_loss_would_do_nothing_and_is_refused():
    toy = Toy()
    logp_nTL, chance_n = toy.logp(toy.tables), toy.probability()
    k1 = (chance_n[:, None, None] * (logp_nTL - toy.logp(toy.reference))).sum()
    assert max(float(g.abs().max()) for g in gradient(k1, [toy])) < 1e-12
    with pytest.raises(ValueError, match="not a loss term"):
        kl_term("k1_in_reward", logp_nTL, logp_nTL, None)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_gamma_one_is_the_gradient_of_the_whole_dialogue(alpha):
    """With everything credited to what came before, nothing is held fixed: Eq. 4 differentiated."""
    toy = Toy()
    r1_n, r2_n = toy.reward_nT.T
    p_n = toy.logp(toy.tables).sum((1, 2)).exp()
    expected = gradient((p_n * (r1_n + r2_n + alpha * (r2_n - r1_n))).sum(), [toy])
    objective = stage_two(2, 0.0, alpha=alpha, gamma=1.0)
    assert_same(estimate([toy], objective, 2, "leave_one_out", "leave_one_out"), expected)


def test_gamma_zero_credits_each_turn_with_its_own_reward():
    """Attempt 2's gradient is that of the full objective; attempt 1's that of r1 alone, whatever alpha."""
    toy = Toy()
    r1_n, r2_n = toy.reward_nT.T
    p_n = toy.logp(toy.tables).sum((1, 2)).exp()
    found = estimate([toy], stage_two(2, 0.0, 10.0, 0.0), 2, "leave_one_out", "leave_one_out")
    whole = gradient((p_n * (r1_n + 11 * r2_n - 10 * r1_n)).sum(), [toy])
    alone = gradient((p_n * r1_n).sum(), [toy])
    assert_same([found[1]], [whole[1]])
    assert_same([found[0]], [alone[0]])
    # Stage I rewards attempt 2 only: without a KL, attempt 1 is not moved at all.
    still, moved = estimate([toy], stage_one(2, 0.0, 0.0), 2, "leave_one_out", "leave_one_out")
    assert still.abs().max() < 1e-15
    assert_same([moved], [gradient((p_n * r2_n).sum(), [toy])[1]])


@pytest.mark.parametrize("later", ["leave_one_out", "leave_one_out_given_first"])
def test_three_attempts(later):
    toy = Toy(vocabulary=2, length=2, attempts=3)
    alpha, gamma, beta1, beta2 = 3.0, 0.25, 0.2, 0.9

    def third(r1: float, r2: float, r3: float) -> tuple[float, ...]:
        return 0.0, 0.0, r3

    def progress(r1: float, r2: float, r3: float) -> tuple[float, ...]:
        last = r3 + alpha * (r3 - r2)
        middle = r2 + alpha * (r2 - r1) + gamma * last
        return r1 + gamma * middle, middle, last

    for objective, value, beta in (
        (stage_one(3, beta1, beta2), third, (beta2, beta2, beta1)),
        (stage_two(3, beta1, alpha, gamma), progress, (beta1, beta1, beta1)),
    ):
        expected = gradient(rewarded(toy, value) - sequence_kl(toy, beta), [toy])
        assert_same(estimate([toy], objective, 2, "leave_one_out", later, "k1_in_reward"), expected)


def test_given_first_attempts_train_only_what_follows_them():
    toy = Toy()
    objective, value = STAGES["stage 2, alpha 10"]
    expected = gradient(rewarded(toy, value) - sequence_kl(toy, objective.kl_weight), [toy])
    found = estimate(
        [toy], objective, 2, "leave_one_out", "leave_one_out", "k1_in_reward", trained=[False, True]
    )
    assert float(found[0].abs().max()) == 0
    assert_same([found[1]], [expected[1]])


@pytest.mark.parametrize(("beta2", "moves"), [(0.0, True), (10.0, False)])
def test_beta2_holds_the_first_attempt_where_parameters_are_shared(beta2, moves):
    """Ascent on Stage I where attempt 2 speaks through attempt 1's logits, as one network would."""
    toy = Toy(vocabulary=3, length=1)
    shared = toy.reference[0].clone().requires_grad_()
    own = torch.zeros(3, 1, 3, dtype=torch.float64, requires_grad=True)
    toy.reference = [shared.detach().clone(), shared.detach().expand(3, 1, 3).clone()]
    objective = stage_one(2, beta1=0.0, beta2=beta2)
    rate = 0.2
    for _ in range(300):
        toy.tables = [t.detach().requires_grad_() for t in (shared, shared + own)]
        first, second = estimate([toy], objective, 2, "leave_one_out", "leave_one_out", "exact")
        with torch.no_grad():
            shared += rate * (first + second.sum(0, keepdim=True))
            own += rate * second
    toy.tables = [shared.detach(), (shared + own).detach()]
    chance_n = toy.probability()
    kl_1 = float(sequence_kl(toy, (1.0, 0.0)))
    assert float(chance_n @ toy.reward_nT[:, 1]) > 0.9
    assert (kl_1 > 0.3) if moves else (kl_1 < 1e-4)
