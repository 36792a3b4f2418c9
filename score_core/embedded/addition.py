"""Sums of two numbers: the task of the embedded default.

In each column the two digits are made to add up to 9 with probability `nines`. Such a column passes
on whatever carry it receives, so a run of them makes the leading digits of the sum hang on its last
digits. The sum is written most significant digit first: a first attempt has to guess those carries
ahead, a second one can read them off the first. Correcting is thus easier than answering, which is
what self-correction needs.
"""

from collections.abc import Iterator

import numpy as np

from score_core.config.data import AdditionData
from score_core.embedded.generated import fill_splits
from score_core.problems import Problem
from score_core.seeding import stream


def make_problems(data: AdditionData, seed: int) -> dict[str, list[Problem]]:
    """Distinct problems for each split, as many as `data.sizes` says, disjoint and alike.

    Raises:
        UserError: there are not that many problems of so few digits.
    """
    texts = problem_texts(data, stream(seed, "data"))
    exercises = ((text, answer_to(text, data.digits)) for text in texts)
    return fill_splits(data.sizes, exercises, f"of {data.digits} digits; lower it, or raise data.digits")


def problem_texts(data: AdditionData, rng: np.random.Generator) -> Iterator[str]:
    """An endless stream of problems such as `40213+59786`."""
    while True:
        for digits in draw_digits(data, 1024, rng):
            first, second = ("".join(map(str, number)) for number in digits)
            yield f"{first}+{second}"


def draw_digits(data: AdditionData, count: int, rng: np.random.Generator) -> np.ndarray:
    """The digits of `count` problems, (count, 2, digits), most significant first, none leading with 0."""
    digits = rng.integers(0, 10, size=(count, 2, data.digits))
    digits[:, :, 0] = rng.integers(1, 10, size=(count, 2))
    made_nine = rng.random((count, data.digits)) < data.nines
    # A leading 9 would need a leading 0 beside it.
    digits[:, 0, 0] = np.where(made_nine[:, 0], rng.integers(1, 9, size=count), digits[:, 0, 0])
    digits[:, 1] = np.where(made_nine, 9 - digits[:, 0], digits[:, 1])
    return digits


def answer_to(problem: str, digits: int) -> str:
    """The sum, padded with zeros to `digits + 1` places, so that every answer is equally long."""
    first, second = problem.split("+")
    return str(int(first) + int(second)).zfill(digits + 1)


def add(digits: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
    """Column addition, optionally with guessed carries.

    Args:
        digits: (N, 2, D) digits, most significant first.
        guess: (N, D) carries out of the columns that add up to 9, taken in place of the carry that
            came in. None adds rightly.

    Returns:
        (N, D + 1) digits of the sums.
    """
    count, _, width = digits.shape
    total = digits.sum(axis=1)
    result = np.zeros((count, width + 1), dtype=np.int64)
    carry = np.zeros(count, dtype=np.int64)
    for column in range(width - 1, -1, -1):
        value = total[:, column] + carry
        result[:, column + 1] = value % 10
        carry = value // 10
        if guess is not None:
            carry = np.where(total[:, column] == 9, guess[:, column], carry)
    result[:, 0] = carry
    return result
