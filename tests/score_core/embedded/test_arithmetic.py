"""Exercises in whole numbers, against Python's own reading of them."""

import re

import pytest

from score_core.embedded.arithmetic import make_problems
from score_core.errors import UserError
from tests.configs import config

SIZES = {"train": 300, "validation": 20, "test": 30}
LINE = re.compile(r"What is ([0-9]+(?: [-+*] [0-9]+)+)\?")


def made(seed=1, **options):
    options = {"operation": "subtraction", "operands": 2, "digits": 5, "sizes": SIZES} | options
    return make_problems(config(data={"source": "arithmetic", **options}).data, seed)


@pytest.mark.parametrize("operands", [2, 3])
@pytest.mark.parametrize(
    ("operation", "sign"), [("addition", "+"), ("subtraction", "-"), ("multiplication", "*")]
)
def test_answers_are_right_and_splits_disjoint(operation, sign, operands):
    splits = made(operation=operation, operands=operands)
    assert {name: len(problems) for name, problems in splits.items()} == SIZES
    whole = [problem for problems in splits.values() for problem in problems]
    assert len({problem.problem for problem in whole}) == len({problem.id for problem in whole}) == 350
    for problem in whole:
        expression = LINE.fullmatch(problem.problem)[1]
        numbers = expression.split(f" {sign} ")
        assert len(numbers) == operands and all(len(n) == 5 and n[0] != "0" for n in numbers)
        assert problem.references == (str(eval(expression)),)


def test_equal_seeds_give_equal_problems_and_differences_have_either_sign():
    assert made(seed=3) == made(seed=3) != made(seed=4)
    below = [problem.answer.startswith("-") for problem in made()["train"]]
    assert 100 < sum(below) < 200


def test_more_than_there_are_is_refused():
    with pytest.raises(
        UserError, match=r"^data.sizes.train: expected 300 .* found only \d+ of 2 numbers of 1 d"
    ):
        made(digits=1, sizes={"train": 300, "validation": 1, "test": 1})
