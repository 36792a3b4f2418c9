"""What supervised methods learn from, on steps written down by hand; and how often they sample anew."""

from typing import Any

import pytest
import torch

from score_core.algorithms import make_algorithm
from score_core.algorithms.pair_sft import partners
from score_core.errors import UserError
from score_core.rl.algorithm import Algorithm, Credit
from tests.configs import config
from tests.score_core.algorithms.steps import judged

# First and second attempt: mended, kept, spoiled, wrong twice, better, worse, as good.
OUTCOMES = [[0, 1], [1, 1], [1, 0], [0, 0], [0.25, 0.5], [0.5, 0.25], [0.5, 0.5]]


def method(section: str, **settings: Any) -> Algorithm:
    """The algorithm of a section, with these settings."""
    return make_algorithm(config(**{section: settings}).stage(section))


def chosen(credit: Credit) -> list[list[float]]:
    """Whether each attempt is learned, after a look at what every method must hold to."""
    assert (credit.advantage_MS == 1).all() and credit.ratio_cap is None
    assert ((credit.weight_MS > 0) == (credit.returns_MS > 0)).all()
    return credit.returns_MS.tolist()


@pytest.mark.parametrize(("keep_right", "kept"), [(False, 0), (True, 1)])
def test_star_learns_corrections_that_came_out_right(keep_right: bool, kept: int) -> None:
    credit = method("star", keep_right=keep_right).credit(judged(OUTCOMES[:4]))
    assert chosen(credit) == [[0, 1], [0, kept], [0, 0], [0, 0]]
    assert credit.source_MS is None
    assert credit.weight_MS.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "threshold", "expected"),
    [
        ("improving", 0.0, [1, 0, 0, 0, 1, 0, 0]),
        ("non_decreasing", 0.0, [1, 1, 0, 1, 1, 0, 1]),
        ("non_decreasing", 0.5, [1, 1, 0, 0, 1, 0, 1]),
        ("non_decreasing", 0.6, [1, 1, 0, 0, 1, 0, 0]),
    ],
)
def test_stasc_filters_by_reward(name: str, threshold: float, expected: list[int]) -> None:
    credit = method("stasc", filter=name, threshold=threshold).credit(judged(OUTCOMES))
    assert chosen(credit) == [[0, learned] for learned in expected]


def test_nothing_chosen_is_nothing_learned() -> None:
    for section in ("star", "stasc"):
        assert method(section).credit(judged([[1, 0], [0, 0]])).weight_MS.sum() == 0
    assert method("pair_sft").credit(judged([[0], [0]])).weight_MS.sum() == 0


def test_pairs_are_of_one_problem_and_right_ones_take_turns() -> None:
    step = judged([[0], [1], [0], [1], [0], [0], [1], [0]], prompts=2)
    credit = method("pair_sft").credit(step)
    # Of the first problem 1 and 3 are right, of the second only 6.
    assert chosen(credit) == [[0, 1], [0, 0], [0, 1], [0, 0], [0, 1], [0, 1], [0, 0], [0, 1]]
    assert credit.source_MS is not None
    learned = {n: second for n, second in enumerate(credit.source_MS[:, 1].tolist()) if n not in (1, 3, 6)}
    assert learned == {0: 1, 2: 3, 4: 6, 5: 6, 7: 6}
    assert credit.source_MS[:, 0].tolist() == list(range(8))
    both = method("pair_sft", keep_right=True).credit(step)
    assert both.source_MS is not None
    assert [both.source_MS[n, 1].item() for n in (1, 3, 6)] == [3, 1, 6]
    assert sum(second for _, second in chosen(both)) == 8


def test_a_problem_without_a_right_attempt_makes_no_pair() -> None:
    assert partners([False, False, True], ["a", "a", "b"], keep_right=True) == [None, None, 2]
    assert partners([True, True], ["a", "a"], keep_right=False) == [None, None]


@pytest.mark.parametrize(
    ("aggregation", "weights"),
    [
        ("sequence_sum", [1 / 2, 1 / 2]),
        ("sequence_mean", [1 / 2 / 3, 1 / 2 / 1]),
        ("token_mean", [1 / 4, 1 / 4]),
        ("constant", [1 / 2 / 5, 1 / 2 / 5]),
    ],
)
def test_pairs_weigh_by_the_length_of_the_attempt_that_is_learned(
    aggregation: str, weights: list[float]
) -> None:
    step = judged([[0], [1], [0], [1]], prompts=2, lengths=[[4], [3], [2], [1]])
    credit = method("pair_sft", length_aggregation=aggregation).credit(step)
    assert credit.weight_MS[[0, 2], 1].tolist() == pytest.approx(weights)
    assert credit.weight_MS[:, 0].sum() == 0


@pytest.mark.parametrize("section", ["star", "pair_sft", "stasc"])
def test_iterations_are_phases_that_keep_the_base_model_as_their_reference(section: str) -> None:
    phases = method(section, iterations=3).phases()
    assert len(phases) == 3 and {type(phase) for phase in phases} == {type(method(section))}
    assert all(phase.samples_start and not phase.moves_reference for phase in phases)
    assert not any(phases[0].kl_weight) and len(phases[0].kl_weight) == phases[0].turns == 2


def test_one_attempt_is_legal_where_a_method_has_one() -> None:
    single, pairs = method("single_turn"), method("pair_sft")
    assert (single.attempts, single.turns, single.longest) == (1, 1, 2)
    assert (pairs.attempts, pairs.turns, pairs.longest) == (1, 2, 2)
    for section in ("stage1", "stage2", "star", "stasc"):
        with pytest.raises(UserError, match=f"{section}.attempts: .*greater than or equal to 2, found 1"):
            method(section, attempts=1)
    with pytest.raises(UserError, match=r"pair_sft.attempts: input should be 1, found 2"):
        method("pair_sft", attempts=2)


def test_a_method_refuses_the_keys_of_others() -> None:
    for section, key in (("star", "filter"), ("single_turn", "alpha"), ("stage2", "keep_right")):
        with pytest.raises(UserError, match=rf"{section}.{key}: unknown key"):
            method(section, **{key: 1})


def test_plain_rl_pays_every_attempt_alike() -> None:
    for section, step in (("single_turn", [[1.0], [0.0]]), ("two_turn", [[1.0, 0.0], [0.0, 1.0]])):
        plain = method(section, baseline="leave_one_out", baseline_later="leave_one_out", beta1=0.25)
        credit = plain.credit(judged(step))
        assert credit.returns_MS.tolist() == step
        expected = torch.tensor([[2 * reward - 1 for reward in row] for row in step])
        assert credit.advantage_MS.equal(expected)
        assert plain.kl_weight == (0.25,) * len(step[0])


def test_grpo_is_a_baseline() -> None:
    credit = method("single_turn", baseline="group_standardised").credit(judged([[1.0], [1.0], [0.0], [0.0]]))
    assert credit.advantage_MS[:, 0].tolist() == pytest.approx([1, 1, -1, -1], abs=1e-3)
