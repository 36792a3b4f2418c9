"""A toy policy, small enough that objective and estimator can both be written down exactly.

It answers in sequences of at most two tokens, ended by an end token or the length limit. Its parameters
are logits: a table for attempt 1, and one for each later attempt given all answers before. The
objective's gradient comes from autograd through the probabilities of all dialogues; the estimator's
from running the code under test on every possible step of K trajectories a prompt, each weighted by its
probability. There is no Monte-Carlo noise on either side.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from score_core.rl.advantages import MovingAverage, advantages
from score_core.rl.objective import (
    Objective,
    kl_penalties,
    kl_term,
    policy_loss,
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
        # A verifier with partial credit: rewards are graded, and an answer is right or wrong besides.
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
        self.correct_nT = self.reward_nT == 1
        self.repeated_nT = self.said_nT.diff(dim=1) == 0

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
    correct_nT = torch.cat([toy.correct_nT for toy in toys])
    repeated_nT = torch.cat([toy.repeated_nT for toy in toys])
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
        returns_NT = objective.returns(reward_nT[rows], repeated_nT[rows])
        if estimator == "k1_in_reward":
            logp_NT, reference_NT = logp_nTL[rows].sum(-1), reference_nTL[rows].sum(-1)
            returns_NT = returns_NT - kl_penalties(objective, logp_NT, reference_NT)
        group_N = torch.arange(len(rows)) // samples
        trained_NT = trained_T.expand(len(rows), attempts)
        average = MovingAverage(mean=dict(state or {}))
        pieces.append(
            advantages(returns_NT, correct_nT[rows], group_N, trained_NT, first, later, average).detach()
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
