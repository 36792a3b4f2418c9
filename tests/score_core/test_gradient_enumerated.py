"""The estimator's expected gradient is the objective's, by enumeration: no Monte-Carlo noise.

A toy policy answers in sequences of at most two tokens, ended by an end token or the length limit. Its
parameters are logits: a table for attempt 1, and one for each later attempt given all answers before.
Both sides can then be written down exactly. The objective's gradient comes from autograd through the
probabilities of all dialogues; the estimator's from running the code under test on every possible step
of K trajectories a prompt, each weighted by its probability.
"""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from score_core.advantages import MovingAverage, advantages
from score_core.objective import (
    Objective,
    kl_penalties,
    kl_term,
    policy_loss,
    stage_one,
    stage_two,
    token_weights,
)

END = 0


class Toy:
    """The policy, the reference and every dialogue they can have about one prompt.

    n dialogues, S possible answers, T attempts, L tokens, V vocabulary.
    """

    def __init__(self, vocabulary: int = 3, length: int = 2, attempts: int = 2, seed: int = 0) -> None:
        words = range(1, vocabulary)
        prefixes = [p for size in range(length) for p in itertools.product(words, repeat=size)]
        complete = list(itertools.product(words, repeat=length))
        answers = [(*prefix, END) for prefix in prefixes] + complete
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        shapes = [(len(answers) ** turn, len(prefixes), vocabulary) for turn in range(attempts)]
        self.tables = [draw(*shape).requires_grad_() for shape in shapes]
        self.reference = [table.detach() + 0.7 * draw(*table.shape) for table in self.tables]
        # A verifier with partial credit, so that outcomes are not only right and wrong.
        self.reward_S = torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=torch.float64)[
            torch.arange(len(answers)) % 4
        ]

        self.said_nT = torch.tensor(list(itertools.product(range(len(answers)), repeat=attempts)))
        self.history_nT = torch.zeros_like(self.said_nT)
        for turn in range(1, attempts):
            before = self.history_nT[:, turn - 1] * len(answers) + self.said_nT[:, turn - 1]
            self.history_nT[:, turn] = before
        self.mask_SL = torch.tensor([[place < len(a) for place in range(length)] for a in answers])
        self.token_SL = torch.tensor([[*a, *[0] * (length - len(a))] for a in answers])
        self.state_SL = torch.tensor(
            [[prefixes.index(a[:p]) if p < len(a) else 0 for p in range(length)] for a in answers]
        )
        self.mask_nTL = self.mask_SL[self.said_nT]
        self.reward_nT = self.reward_S[self.said_nT]

    def distributions(self, tables: Sequence[Tensor]) -> Tensor:
        """Log-probabilities (n, T, L, V) at every position."""
        turns = [
            table.log_softmax(-1)[self.history_nT[:, turn, None], self.state_SL[self.said_nT[:, turn]]]
            for turn, table in enumerate(tables)
        ]
        return torch.stack(turns, dim=1)

    def logp(self, tables: Sequence[Tensor]) -> Tensor:
        """Log-probabilities (n, T, L) of what was said, 0 behind its end."""
        logp_nTLV = self.distributions(tables)
        logp_nTL = logp_nTLV.gather(-1, self.token_SL[self.said_nT][..., None]).squeeze(-1)
        return logp_nTL * self.mask_nTL

    def probability(self) -> Tensor:
        return self.logp(self.tables).sum((1, 2)).exp().detach()


def gradient(value: Tensor, toys: Sequence[Toy]) -> list[Tensor]:
    tables = [table for toy in toys for table in toy.tables]
    found = torch.autograd.grad(value, tables, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tables, found, strict=True)]


# --------------------------------------------------------------------- the objective's gradient


def per_turn(toy: Toy, value_nT: Tensor) -> Tensor:
    """sum_t E[value_t] where only the probability of attempt t itself is differentiated.

    This is what crediting each turn with its own return means: the histories that an attempt answers,
    and what follows it, are drawn from the policy but held fixed.
    """
    p_nT = toy.logp(toy.tables).sum(-1).exp()
    others_nT = (p_nT.prod(1, keepdim=True) / p_nT).detach()
    return (others_nT * p_nT * value_nT).sum()


def sequence_kl(toy: Toy, beta: Sequence[float]) -> Tensor:
    """sum_t beta_t E[KL(pi(y_t | x_t) || ref)] over whole answers, the states x_t held fixed."""
    logp_nT, reference_nT = toy.logp(toy.tables).sum(-1), toy.logp(toy.reference).sum(-1)
    return per_turn(toy, (logp_nT - reference_nT) * torch.tensor(beta))


def kl_of_positions(toy: Toy, forward: bool = False) -> Tensor:
    """KL (n, T, L) of the next token at every position of every dialogue."""
    logp, reference = toy.distributions(toy.tables), toy.distributions(toy.reference)
    above, below = (reference, logp) if forward else (logp, reference)
    return (above.exp() * (above - below)).sum(-1) * toy.mask_nTL


def token_kl(toy: Toy, beta: Sequence[float], forward: bool = False) -> Tensor:
    """sum_t beta_t E[sum of the KLs of attempt t's positions], the whole distribution of states held
    fixed: not only the histories, but also the prefixes of the answer itself."""
    kl_nT = kl_of_positions(toy, forward).sum(-1)
    return (toy.probability()[:, None] * kl_nT * torch.tensor(beta)).sum()


def stage_one_return(r1: float, r2: float) -> tuple[float, float]:
    return 0.0, r2


def stage_two_return(alpha: float, gamma: float = 0.0) -> Callable[[float, float], tuple[float, float]]:
    def value(r1: float, r2: float) -> tuple[float, float]:
        return r1 * (1 - gamma * alpha) + gamma * (1 + alpha) * r2, r2 + alpha * (r2 - r1)

    return value


def rewarded(toy: Toy, value: Callable[..., tuple[float, ...]]) -> Tensor:
    """sum_t E[R_t], credited per turn."""
    table = [value(*rewards) for rewards in toy.reward_nT.tolist()]
    return per_turn(toy, torch.tensor(table, dtype=torch.float64))


# --------------------------------------------------------------------- the estimator's gradient


def estimate(
    toys: Sequence[Toy],
    objective: Objective,
    samples: int,
    first: str,
    later: str,
    estimator: str | None = None,
    state: dict[int, float] | None = None,
    trained: Sequence[bool] | None = None,
) -> list[Tensor]:
    """The expected *ascent* direction of the code under test over all steps of `samples` a toy."""
    count, attempts = toys[0].said_nT.shape
    logp_nTL = torch.cat([toy.logp(toy.tables) for toy in toys])
    reference_nTL = torch.cat([toy.logp(toy.reference) for toy in toys])
    mask_nTL = torch.cat([toy.mask_nTL for toy in toys])
    reward_nT = torch.cat([toy.reward_nT for toy in toys])
    probability_n = torch.cat([toy.probability() for toy in toys])
    exact_nTL = torch.cat([kl_of_positions(toy) for toy in toys])
    size = samples * len(toys)
    steps = torch.tensor(list(itertools.product(range(count), repeat=size)))
    steps = steps + count * (torch.arange(size) // samples)
    trained_T = torch.tensor([True] * attempts if trained is None else trained)

    # This baseline looks across a step's prompts, so it is shown one step at a time.
    at_once = 1 if later == "leave_one_out_given_first" else max(1, 600 // size)
    total = [torch.zeros_like(table) for toy in toys for table in toy.tables]
    pieces = []
    for some in steps.split(at_once):
        rows = some.flatten()
        returns_NT = objective.returns(reward_nT[rows])
        if estimator == "k1_in_reward":
            logp_NT, reference_NT = logp_nTL[rows].sum(-1), reference_nTL[rows].sum(-1)
            returns_NT = returns_NT - kl_penalties(objective, logp_NT, reference_NT)
        group_N = torch.arange(len(rows)) // samples
        trained_NT = trained_T.expand(len(rows), attempts)
        average = MovingAverage(mean=dict(state or {}))
        pieces.append(
            advantages(returns_NT, reward_nT[rows], group_N, trained_NT, first, later, average).detach()
        )
    advantage_NT = torch.cat(pieces)

    for some, advantage in zip(steps.split(20_000), advantage_NT.split(20_000 * size), strict=True):
        rows = some.flatten()
        mask = mask_nTL[rows]
        lengths_NT = mask_nTL[some[0]].sum(-1)
        weight_T = token_weights("sequence_sum", lengths_NT, trained_T.expand(size, attempts), 2)[0].double()
        chance_N = probability_n[some].prod(1).repeat_interleave(size)

        def spread(value_NT: Tensor, mask: Tensor = mask) -> Tensor:
            return value_NT[..., None].expand(mask.shape)[mask]

        logp_P = logp_nTL[rows][mask]
        kl_P = None
        if estimator not in (None, "k1_in_reward"):
            kl_P = kl_term(estimator, logp_P, reference_nTL[rows][mask], exact_nTL[rows][mask])
        beta_T = torch.tensor(objective.kl_weight, dtype=torch.float64)
        loss = policy_loss(
            logp_P,
            kl_P,
            spread(advantage),
            spread(beta_T.expand(len(rows), attempts)),
            spread(chance_N[:, None] * weight_T),
        )
        total = [t - g for t, g in zip(total, gradient(loss, toys), strict=True)]
    # A step holds `size` trajectories and its loss is their mean, so toys share it equally.
    return [len(toys) * t for t in total]


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
