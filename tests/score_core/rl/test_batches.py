"""What a step is made of: the order of problems, micro-batches, random numbers by name."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from score_core.problems import Problem
from score_core.rl.batches import MicroBatch, PromptSchedule, split, token_balanced
from score_core.rollout.trajectories import assemble
from score_core.seeding import derive_seed, stream

PROBLEMS = [Problem(id=str(n), problem=f"{n}+1", references=(str(n + 1),)) for n in range(7)]


def test_every_problem_comes_once_before_any_comes_twice() -> None:
    order = PromptSchedule([range(7)], 24, seed=3, name="stage1").order
    assert len(order) == 24
    passes = [order[start : start + 7] for start in range(0, 24, 7)]
    assert all(sorted(part) == list(range(7)) for part in passes[:3])
    assert len(set(passes[3])) == 3
    assert passes[0] != passes[1]


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    short, long = (
        PromptSchedule([range(7)], positions, seed=3, name="stage1").order for positions in (10, 40)
    )
    assert long[:10] == short
    assert PromptSchedule([range(7)], 40, seed=3, name="stage2").order != long


def test_micro_batches_hold_every_trajectory_once_with_what_is_its_own() -> None:
    lengths = [5, 2, 9, 2, 7, 3]
    rows = [(([10 + n] * length, 0), ([n + 1], 1)) for n, length in enumerate(lengths)]
    trajectories = assemble(rows, [[False]] * 6, pad_id=0, device=torch.device("cpu"))
    names = torch.arange(6.0)[:, None]
    batches = split(MicroBatch(trajectories, names, names * 10, names % 2 == 0), 3, share_prompts=False)
    assert [len(batch.trajectories) for batch in batches] == [3, 2, 1]
    seen = []
    for batch in batches:
        for row, name in enumerate(batch.advantage_NT[:, 0].int().tolist()):
            assert batch.trajectories.segments[row] == rows[name]
            assert batch.weight_NT[row, 0] == 10 * name
            seen.append(name)
    assert sorted(seen) == list(range(6))
    widths = [batch.trajectories.input_ids_NL.shape[1] for batch in batches]
    assert widths == [4, 8, 10], "like lengths together: hardly any padding"


def test_trajectories_that_share_a_prompt_are_next_to_each_other() -> None:
    lengths = [[3, 9], [2, 2], [5, 1], [4, 4]]
    rows = [(([10 + at], 0), ([7] * n, 1)) for at, both in enumerate(lengths) for n in both]
    trajectories = assemble(rows, [[False]] * 8, pad_id=0, device=torch.device("cpu"))
    names = torch.arange(8.0)[:, None]
    batches = split(MicroBatch(trajectories, names, names, names >= 0), 3, share_prompts=True)
    assert len(batches) == 3
    prompts = [pieces[0][0][0] for batch in batches for pieces in batch.trajectories.segments]
    assert prompts == [11, 11, 13, 13, 12, 12, 10, 10], "by the longest of each"
    seen = [int(name) for batch in batches for name in batch.advantage_NT[:, 0]]
    assert [trajectories.segments[name] for name in seen] == [
        pieces for batch in batches for pieces in batch.trajectories.segments
    ]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 9))
def test_the_largest_micro_batch_is_as_small_as_any_cut_makes_it(lengths: list[int], count: int) -> None:
    lengths, count = sorted(lengths), min(count, len(lengths))

    def largest(sizes: Sequence[int]) -> int:
        ends = np.cumsum(sizes)
        return max(size * lengths[end - 1] for size, end in zip(sizes, ends, strict=True))

    found = token_balanced(lengths, count)
    assert len(found) == count and sum(found) == len(lengths) and min(found) > 0
    cuts = combinations(range(1, len(lengths)), count - 1)
    every = [np.diff([0, *cut, len(lengths)]).tolist() for cut in cuts]
    assert largest(found) == min(map(largest, every))


def test_random_numbers_of_different_uses_are_unrelated() -> None:
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2)
    uses = (("a",), ("b",), ("a", 2), (2,), (2, 2))
    seeds = {derive_seed(seed, *names) for seed in (1, 2, 12) for names in uses}
    assert len(seeds) == 15
    first, second = (stream(1, name).random(10_000) for name in ("a", "b"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
