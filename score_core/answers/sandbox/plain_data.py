"""What passes between a program and its tests: frames of JSON that hold plain data and nothing that acts.

A value of any other kind stays where it is, and its number passes in its place. What arrives is of Python's
own types, whatever the program has made of `__eq__`: equality is decided on the tests' side alone.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

MAX_FRAME_BYTES = 1 << 24
MAX_ITEMS = 1 << 17  # taken of an iterator, which may have no end
_SMALL = 1 << 53

_SEQUENCES: dict[type[Any], str] = {tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque"}
_TEXTS: dict[type[Any], str] = {Decimal: "Decimal", Fraction: "Fraction", complex: "complex"}
_MAKE: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "iterator": iter,
    "dict": dict,
    "range": lambda parts: range(*parts),
    "int": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "complex": complex,
}


def encode(value: Any, handle: Callable[[Any], int]) -> Any:
    """`value` as what JSON can hold; `handle` gives the number of what is no plain data, or raises.

    Of a subclass only what its base holds passes: a Counter is a dict, a named tuple a tuple.
    """

    def inner(value: Any) -> Any:
        match value:
            case None | bool() | str():
                return str(value) if isinstance(value, str) else value
            case int():
                return int(value) if abs(value) < _SMALL else {"int": hex(value)}
            case float():
                return float(value)
            case list():
                return [inner(one) for one in value]
            case dict():
                return {"dict": [[inner(key), inner(one)] for key, one in value.items()]}
            case bytes() | bytearray():
                return {"bytes": value.hex()}
            case range():
                return {"range": [value.start, value.stop, value.step]}
        for kind, name in _SEQUENCES.items():
            if isinstance(value, kind):
                return {name: [inner(one) for one in value]}
        for kind, name in _TEXTS.items():
            if isinstance(value, kind):
                return {name: str(value)}
        if isinstance(value, Iterator):
            return {"iterator": [inner(one) for one in islice(value, MAX_ITEMS)]}
        return {"handle": handle(value)}

    return inner(value)


def decode(value: Any, held: Callable[[int], Any]) -> Any:
    """What `encode` was given; `held` gives what a number stands for.

    Raises:
        ValueError, TypeError, KeyError: `encode` has not made it.
    """
    if isinstance(value, list):
        return [decode(one, held) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return held(int(content)) if kind == "handle" else _MAKE[kind](decode(content, held))


def send(channel: int, value: Any) -> None:
    """Writes one frame, eight bytes that give its length before it."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    view = memoryview(len(text).to_bytes(8, "big") + text)
    while view:
        view = view[os.write(channel, view) :]


def receive(channel: int) -> Any:
    """Reads one frame.

    Raises:
        EOFError: nobody is at the other end.
        ValueError: it is too long, or no JSON.
    """
    size = int.from_bytes(read_exactly(channel, 8), "big")
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes")
    return json.loads(read_exactly(channel, size))


def read_exactly(channel: int, size: int) -> bytes:
    """The next `size` bytes.

    Raises:
        EOFError: there are fewer.
    """
    parts = bytearray()
    while len(parts) < size:
        part = os.read(channel, min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
