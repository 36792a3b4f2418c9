"""The process in which a model's program runs: it answers calls, and knows nothing of any test.

The program may do to this process whatever it likes. All that can come of it is other plain data in answer to
a call whose arguments it sees, and whose expected result it does not.
"""

import builtins
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from score_core.answers.sandbox import kernel
from score_core.answers.sandbox.plain_data import decode, encode, receive, send

CHANNEL = 3


def serve(channel: int, source: dict[str, Any], seconds: int, memory_bytes: int) -> None:
    """Runs `source["preamble"]` and `source["program"]`, then answers what `channel` asks until it closes."""
    os.dup2(channel, CHANNEL)
    os.closerange(CHANNEL + 1, 256)
    kernel.die_with_parent()
    kernel.set_limits(seconds, memory_bytes)
    kernel.refuse_system_calls()
    random.seed(0)  # the same verdict another time
    space: dict[str, Any] = {"__name__": "program"}
    held: list[Any] = []

    def handle(value: Any) -> int:
        held.append(value)
        return len(held) - 1

    def reply(work: Callable[[], Any]) -> None:
        try:
            answer = {"value": encode(work(), handle)}
        except BaseException as error:  # SystemExit, too: who ends early has passed nothing
            answer = {"error": type(error).__name__}
        send(CHANNEL, answer)

    def load() -> None:
        for name in ("preamble", "program"):
            exec(compile(source[name], f"<{name}>", "exec"), space)

    def act(asked: dict[str, Any]) -> Any:
        on, arguments = asked["on"], [decode(one, held.__getitem__) for one in asked["arguments"]]
        match asked["act"]:
            case "name":
                return handle(space[asked["name"]])
            case "call":
                named = {key: decode(one, held.__getitem__) for key, one in asked["named"].items()}
                return held[on](*arguments, **named)
            case "item":
                return held[on][arguments[0]]
            case "iterate":
                return iter(held[on])
            case other:  # len, getattr, setattr
                return getattr(builtins, other)(held[on], *arguments)

    reply(load)
    while True:
        reply(partial(act, receive(CHANNEL)))


def main(channel: int, source: dict[str, Any], seconds: int, memory_bytes: int) -> None:
    """As `serve`, and ends the process."""
    sys.setrecursionlimit(1000)
    try:
        serve(channel, source, seconds, memory_bytes)
    finally:
        os._exit(0)
