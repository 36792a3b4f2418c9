"""Exercises in whole numbers: a task for models that read, without a download."""

from collections.abc import Iterator
from itertools import accumulate
from operator import add, mul, sub

import numpy as np

from score_core.config.data import ArithmeticData
from score_core.embedded.generated import fill_splits
from score_core.problems import Problem
from score_core.seeding import stream

OPERATIONS = {"addition": ("+", add), "subtraction": ("-", sub), "multiplication": ("*", mul)}


def make_problems(data: ArithmeticData, seed: int) -> dict[str, list[Problem]]:
    """Distinct problems for each split, as many as `data.sizes` says, disjoint and alike.

    Raises:
        UserError: there are not that many of so few digits.
    """
    kind = f"of {data.operands} numbers of {data.digits} digits; lower it, or raise data.digits"
    return fill_splits(data.sizes, exercises(data, stream(seed, "data")), kind)


def exercises(data: ArithmeticData, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """An endless stream of problems such as `What is 40213 - 59786?`, each with its exact answer, `-19573`.

    Operands have `data.digits` digits each, the first of which is not 0, all equally likely.
    """
    sign, operate = OPERATIONS[data.operation]
    least, most = (10 ** (data.digits - 1), 10**data.digits)
    while True:
        for drawn in rng.integers(least, most, size=(1024, data.operands)):
            numbers = [int(number) for number in drawn]
            *_, answer = accumulate(numbers, operate)
            yield f"What is {f' {sign} '.join(map(str, numbers))}?", str(answer)
