"""Every baseline against a loop; who informs whom; the moving average's state."""

import pytest
import torch

from score_core.rl.advantages import MovingAverage, advantages

DRAWS = range(4)


def step(seed: int, attempts: int = 2, prompts: int = 5, samples: int = 4):
    """Returns, whether attempts are right, groups in no order, and some given attempts."""
    generator = torch.Generator().manual_seed(seed)
    count = prompts * samples
    returns = torch.randn(count, attempts, dtype=torch.float64, generator=generator)
    correct = torch.rand(count, attempts, generator=generator) < 0.5
    order = torch.randperm(count, generator=generator)
    group = torch.arange(prompts).repeat_interleave(samples)[order]
    trained = torch.ones(count, attempts, dtype=torch.bool)
    trained[:, 0] = torch.rand(count, generator=generator) < 0.8
    return returns, correct, group, trained


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def loop(name: str, returns, correct, group, trained, t: int) -> list[float]:
    """The advantages of attempt t, one trajectory at a time."""
    result = []
    for i in range(len(group)):
        if not trained[i, t]:
            result.append(0.0)
            continue
        everyone = [j for j in range(len(group)) if trained[j, t]]
        own_group = [j for j in everyone if group[j] == group[i]]
        others = [j for j in own_group if j != i]
        value = float(returns[i, t])
        if name == "leave_one_out":
            value -= mean([float(returns[j, t]) for j in others])
        elif name == "leave_one_out_given_first":
            alike = [j for j in everyone if j != i and correct[j, t - 1] == correct[i, t - 1]]
            near = [j for j in alike if group[j] == group[i]]
            value -= mean([float(returns[j, t]) for j in near or alike])
        elif name in ("group_mean", "group_standardised"):
            values = [float(returns[j, t]) for j in own_group]
            value -= mean(values)
            if name == "group_standardised":
                value /= mean([(v - mean(values)) ** 2 for v in values]) ** 0.5 + 1e-4
        result.append(value)
    return result


@pytest.mark.parametrize("seed", DRAWS)
@pytest.mark.parametrize("attempts", [2, 3])
@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("leave_one_out", "leave_one_out"),
        ("leave_one_out", "leave_one_out_given_first"),
        ("group_mean", "group_mean"),
        ("group_standardised", "group_standardised"),
        ("none", "none"),
        ("none", "leave_one_out"),
    ],
)
def test_against_loops(first, later, attempts, seed):
    returns, correct, group, trained = step(seed, attempts)
    found = advantages(returns, correct, group, trained, first, later, MovingAverage())
    for t in range(attempts):
        expected = loop(later if t else first, returns, correct, group, trained, t)
        torch.testing.assert_close(found[:, t], torch.tensor(expected, dtype=torch.float64))


def test_the_three_cases_of_leave_one_out_given_first():
    # Prompt 0: two right first. Prompt 1: one right first (falls back to prompt 0's), one alone, wrong.
    returns = torch.tensor([[0.0, 3.0], [0.0, 5.0], [0.0, 10.0], [0.0, 7.0]])
    correct = torch.tensor([[True, False], [True, False], [True, False], [False, False]])
    group, trained = torch.tensor([0, 0, 1, 1]), torch.ones(4, 2, dtype=torch.bool)
    found = advantages(
        returns, correct, group, trained, "leave_one_out", "leave_one_out_given_first", MovingAverage()
    )
    assert found[:, 1].tolist() == [3 - 5, 5 - 3, 10 - (3 + 5) / 2, 7]


def test_it_takes_out_the_noise_that_the_first_attempt_adds():
    """Where all r2 are equal, nothing is to be learnt of attempt 2, though its shaped returns differ."""
    rewards = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    returns = rewards[:, 1:] + 10 * rewards.diff(dim=1)
    returns = torch.cat([rewards[:, :1], returns], dim=1)
    group, trained = torch.zeros(4), torch.ones(4, 2, dtype=torch.bool)

    def second(later: str) -> torch.Tensor:
        return advantages(returns, rewards == 1, group, trained, "none", later, MovingAverage())[:, 1]

    assert second("leave_one_out_given_first").abs().max() == 0
    assert second("leave_one_out").abs().max() > 5


@pytest.mark.parametrize("name", ["leave_one_out", "group_mean", "group_standardised", "moving_average"])
def test_given_attempts_get_nothing_and_inform_nobody(name):
    returns, correct, group, trained = step(0)
    wild = returns.clone()
    wild[~trained] = 1e6
    calm, stirred = (
        advantages(r, correct, group, trained, name, "none", MovingAverage()) for r in (returns, wild)
    )
    assert not trained[:, 0].all()
    assert (calm[~trained] == 0).all()
    assert torch.equal(calm, stirred)


def test_nobody_is_trained():
    returns, correct, group, trained = step(0)
    trained[:, 0] = False
    state = MovingAverage(mean={1: 2.0})
    found = advantages(returns, correct, group, trained, "moving_average", "none", state)
    assert (found[:, 0] == 0).all()
    assert state.mean == {1: 2.0}


def test_moving_average_uses_earlier_steps_only():
    state = MovingAverage(decay=0.9)
    expected_mean = {1: None, 2: None}
    for seed in range(5):
        returns, correct, group, trained = step(seed)
        found = advantages(returns, correct, group, trained, "moving_average", "moving_average", state)
        for t in (0, 1):
            rows = trained[:, t]
            seen = expected_mean[t + 1]
            torch.testing.assert_close(found[rows, t], returns[rows, t] - (0.0 if seen is None else seen))
            batch = float(returns[rows, t].mean())
            expected_mean[t + 1] = batch if seen is None else 0.9 * seen + 0.1 * batch
    assert state.mean == pytest.approx(expected_mean)


def test_order_of_trajectories_does_not_matter():
    returns, correct, group, trained = step(1)
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(0))

    def found(rows: torch.Tensor) -> torch.Tensor:
        return advantages(
            returns[rows],
            correct[rows],
            group[rows],
            trained[rows],
            "leave_one_out",
            "leave_one_out_given_first",
            MovingAverage(),
        )

    torch.testing.assert_close(found(order), found(torch.arange(len(group)))[order])
