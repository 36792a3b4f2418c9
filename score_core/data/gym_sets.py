"""Exercises of the library reasoning_gym.

A gold answer keeps all that the library's own scorer asks for, where `reward.matcher: reasoning_gym`
compares; any other matcher gets the library's answer alone.
"""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from score_core.answers.gym import dataset
from score_core.config.data import GymData
from score_core.embedded.generated import fill_splits
from score_core.problems import Problem
from score_core.seeding import derive_seed

CHUNK = 500  # exercises of one seed


def make_problems(data: GymData, seed: int, scored: bool) -> dict[str, list[Problem]]:
    """Distinct problems for each split, as many as `data.sizes` says, disjoint and alike.

    Args:
        scored: gold answers are for the library's scorer.

    Raises:
        UserError: the library is not there, has no such data set or options, or there are too few problems.
    """
    kind = f"of {data.dataset}; lower it, or let data.options allow more"
    return fill_splits(data.sizes, exercises(data, seed, scored), kind)


def exercises(data: GymData, seed: int, scored: bool) -> Iterator[tuple[str, str]]:
    """An endless stream of problems, each with its gold answer."""
    for number in count():
        chosen = derive_seed(seed, f"data/{number}") % 2**31
        for entry in dataset(data.dataset, data.options, chosen, CHUNK):
            yield entry["question"], reference(data, entry) if scored else entry["answer"]


def reference(data: GymData, entry: dict[str, Any]) -> str:
    """An exercise as a gold answer for the scorer.

    What JSON does not know becomes text; a scorer that cannot use that finds its own answer wrong, and the
    row is quarantined.
    """
    kept = {"dataset": data.dataset, "options": data.options}
    return json.dumps({**kept, "answer": entry["answer"], "metadata": entry["metadata"]}, default=str)
