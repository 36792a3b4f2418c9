"""PAG's expected gradient where the policy itself decides whether there is a revision, by enumeration."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from score_core.algorithms import make_algorithm
from score_core.algorithms.pag import Pag
from score_core.rl.algorithm import Algorithm, Credit, Judged
from score_core.rl.objective import policy_loss
from tests.configs import config
from tests.score_core.rl.enumeration import Toy, gradient, kl_of_positions, per_turn, token_kl
from tests.score_core.rl.test_gradient_enumerated import assert_same

WRONG, RIGHT = 1, 0  # verdicts by their number among the answers; others cannot be read


class Verifying(Toy):
    """A toy of three turns whose second one decides whether the third takes place."""

    def __init__(self, vocabulary: int = 2, length: int = 2, seed: int = 0) -> None:
        super().__init__(vocabulary, length, attempts=3, seed=seed)
        ended = self.said_nT[:, 1] != WRONG
        # Of the dialogues that differ in what was never said, one is kept.
        kept = ~ended | (self.said_nT[:, 2] == 0)
        for name in ("said_nT", "history_nT", "mask_nTL", "reward_nT", "repeated_nT"):
            setattr(self, name, getattr(self, name)[kept])
        self.ended_n = ended[kept]
        self.mask_nTL[self.ended_n, 2] = False
        first_n, verdict_n = self.reward_nT[:, 0], self.said_nT[:, 1]
        agrees_n = torch.where(first_n == 1, verdict_n == RIGHT, verdict_n == WRONG)
        self.reward_nT[:, 1] = agrees_n.double()
        self.reward_nT[self.ended_n, 2] = first_n[self.ended_n]  # the first attempt stands


def algorithm(**settings: Any) -> Algorithm:
    return make_algorithm(config(pag=settings).stage("pag"))


def expected_direction(toys: Sequence[Verifying], method: Algorithm, samples: int) -> list[Tensor]:
    """The mean of the method's ascent directions over all steps of `samples` trajectories a toy."""
    sizes = [len(toy.said_nT) for toy in toys]
    offsets = [0, *itertools.accumulate(sizes)][: len(toys)]
    logp_nTL = torch.cat([toy.logp(toy.tables) for toy in toys])
    mask_nTL = torch.cat([toy.mask_nTL for toy in toys])
    exact_nTL = torch.cat([kl_of_positions(toy) for toy in toys])
    reward_nT = torch.cat([toy.reward_nT for toy in toys])
    chance_n = logp_nTL.detach().sum((1, 2)).exp()
    weights_nT = torch.zeros(len(chance_n), 3, dtype=torch.float64)  # of -log pi, over all steps
    kl_weights_nT = torch.zeros_like(weights_nT)
    group_N = torch.arange(samples * len(toys)) // samples
    places = [range(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True)]
    for step in itertools.product(*(one for one in places for _ in range(samples))):
        rows = torch.tensor(step)
        credit = method.credit(
            Judged(
                group_N=group_N,
                rewards_NT=reward_nT[rows],
                correct_NT=reward_nT[rows] == 1,
                changed_NT=torch.zeros(len(rows), 1, dtype=torch.bool),
                lengths_NT=mask_nTL[rows].sum(-1),
                sampled_NT=torch.ones(len(rows), 3, dtype=torch.bool),
                logp_NT=logp_nTL[rows].detach().sum(-1),
                reference_logp_NT=None,
                longest=2,
            )
        )
        chance = chance_n[rows].prod()
        weights_nT.index_add_(0, rows, chance * (credit.weight_MS * credit.advantage_MS).double())
        kl_weights_nT.index_add_(0, rows, chance * credit.weight_MS.double())

    def spread(value_nT: Tensor) -> Tensor:
        return value_nT[..., None].expand(mask_nTL.shape)[mask_nTL]

    beta_nT = torch.tensor(method.kl_weight, dtype=torch.float64) * kl_weights_nT
    loss = policy_loss(
        logp_nTL[mask_nTL], exact_nTL[mask_nTL], spread(weights_nT), spread(beta_nT), torch.ones(())
    )
    return [-len(toys) * found for found in gradient(loss, toys)]


def objective(toys: Sequence[Verifying], beta: float) -> list[Tensor]:
    """The gradient of the expected rewards, each turn credited with its own, less the KL of its positions."""
    found = []
    for toy in toys:
        value = per_turn(toy, toy.reward_nT) - token_kl(toy, (beta,) * 3)
        found += gradient(value, [toy])
    return found


BASELINES = ("leave_one_out", "leave_one_out_given_first", "none")


@pytest.mark.parametrize("later", BASELINES)
@pytest.mark.parametrize("aggregation", ["sequence_sum", "constant"])
@pytest.mark.parametrize(
    ("prompts", "samples", "length"),
    [(1, 2, 2), (1, 3, 1), (2, 2, 1)],
    ids=["unreadable verdicts, too", "some, one or none of three revised", "others of the batch"],
)
def test_unbiased_where_the_policy_decides_how_many_turns_there_are(
    later: str, aggregation: str, prompts: int, samples: int, length: int
) -> None:
    toys = [Verifying(length=length, seed=seed) for seed in range(prompts)]
    method = algorithm(baseline_later=later, beta1=0.3, length_aggregation=aggregation)
    scale = {"sequence_sum": 1.0, "constant": 0.5}[aggregation]
    expected = [scale * g for g in objective(toys, 0.3)]
    assert_same(expected_direction(toys, method, samples), expected)


def test_a_revision_has_the_gradient_of_the_final_answers_accuracy() -> None:
    """That of the whole dialogue, verdict and all: nothing is held fixed."""
    toy = Verifying()
    final = (toy.logp(toy.tables).sum((1, 2)).exp() * toy.reward_nT[:, 2]).sum()
    found = expected_direction([toy], algorithm(beta1=0.0), 2)
    assert_same(found[2:], gradient(final, [toy])[2:])


def test_a_mean_over_those_who_revised_would_be_another_objective() -> None:
    """It would weigh a revision by how many others there happen to be: prompts unlike one another."""
    toys = [Verifying(length=1, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        for toy, surely in zip(toys, (2.0, -2.0), strict=True):
            toy.tables[1][..., WRONG] += surely
    method = algorithm(beta1=0.0, baseline_later="none")
    exact = objective(toys, 0.0)

    class Mean(Pag):
        def credit(self, judged: Judged) -> Credit:
            credit = super().credit(judged)
            held_T = judged.held_NT.sum(0).clamp(min=1)
            return replace(credit, weight_MS=torch.ones_like(credit.weight_MS) / held_T)

    scales = []
    for found in (expected_direction(toys, one, 2) for one in (method, Mean(method.settings))):
        assert_same([*found[:2], *found[3:5]], [*exact[:2], *exact[3:5]])
        scales.append([float((found[at] * exact[at]).sum() / exact[at].square().sum()) for at in (2, 5)])
    assert scales[0] == pytest.approx([1.0, 1.0])
    assert scales[1][0] > 1.3 * scales[1][1] > 1.3
