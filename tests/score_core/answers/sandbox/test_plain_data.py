"""What passes between a program and its tests arrives as it was sent, and nothing else arrives."""

import json
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest

from score_core.answers.sandbox.plain_data import decode, encode

Point = namedtuple("Point", "x y")


def passed(value: object) -> object:
    """`value` at the other end; what is no plain data is its number there."""
    held: list[object] = []

    def handle(value: object) -> int:
        held.append(value)
        return len(held) - 1

    return decode(json.loads(json.dumps(encode(value, handle))), lambda number: ("handle", number))


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            False,
            0,
            -7,
            1 << 53,
            -(1 << 4000),
            [1 << 20000],
            0.1,
            -0.0,
            math.inf,
            "",
            "ä\ud800\x00",
        ),
        *([], [1, [2, "x"]], (), (1, (2,)), {}, {1: {"a": (3,)}, (1, 2): None, "tuple": [1]}),
        *({1, 2}, frozenset({3}), {frozenset({3})}, b"\x00\xff", range(3, 9, 2), deque([1]), 1 + 2j),
        *(Decimal("1.50"), Fraction(2, 3)),
    ],
)
def test_plain_values_arrive_as_they_are(value: object) -> None:
    arrived = passed(value)
    assert (arrived, type(arrived)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (Point(1, 2), (1, 2)),
        (type("I", (int,), {"__eq__": lambda a, b: True, "__hash__": None})(3), 3),
        (type("S", (str,), {"__eq__": lambda a, b: True, "__hash__": None})("s"), "s"),
        (type("F", (float,), {})(0.5), 0.5),
    ],
)
def test_of_a_subclass_its_base_arrives(value: object, base: object) -> None:
    arrived = passed(value)
    assert (arrived, type(arrived)) == (base, type(base))


def test_iterators_arrive_as_iterators_and_other_things_as_numbers() -> None:
    assert list(passed(iter([1, 2]))) == [1, 2]  # type: ignore[call-overload]
    assert list(passed(n * n for n in range(3))) == [0, 1, 4]  # type: ignore[call-overload]
    assert passed([object(), len, int]) == [("handle", 0), ("handle", 1), ("handle", 2)]


@pytest.mark.parametrize("value", [{"unknown": 1}, {"tuple": 1}, {}, {"int": "zz"}, {"set": [[1]]}])
def test_what_was_not_encoded_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode(value, lambda number: number)
