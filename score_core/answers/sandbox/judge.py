"""The process in which the tests of a problem run, beside the program's own, with which it shares nothing.

The names that tests call are stand-ins: a call sends its arguments to the program's process and takes back
plain data. What is asserted about these is decided here.
"""

import builtins
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from score_core.answers.sandbox import kernel, program
from score_core.answers.sandbox.plain_data import decode, encode, read_exactly, receive, send

READ, PASSED, FAILED = b"r", b"1", b"0"  # what the judge says: its tests are read, then one a test
LOST = 3  # its exit code where the program was killed from outside
MEMORY_BYTES = 512 << 20
NONE: Mapping[str, Any] = MappingProxyType({})


class Raised(Exception):  # noqa: N818 - what the program has raised
    """An exception of the program's that is none of Python's own."""


class Ended(Exception):  # noqa: N818 - says what it is
    """The program's process is gone, or speaks no more sense."""


class Remote:
    """A function, class or object of the program's. It equals nothing but itself, whatever it says."""

    __slots__ = ("_ask", "_number")

    def __init__(self, ask: Callable[..., Any], number: int) -> None:
        object.__setattr__(self, "_ask", ask)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", self._number, arguments, named)

    def __getattr__(self, name: str) -> Any:
        return self._ask("getattr", self._number, (name,))

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", self._number, (name, value))

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", self._number, (key,))

    def __len__(self) -> int:
        return int(self._ask("len", self._number))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ask("iterate", self._number))


class Program:
    """The other end of the channel to a program's process."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def loaded(self) -> bool:
        """Whether the program ran to its end without an exception; to be asked first, and once."""
        try:
            return "value" in self._receive()
        except Ended:
            return False

    def name(self, name: str) -> Remote:
        """Stands for what the program calls `name`; raises NameError if there is none."""
        try:
            return Remote(self._ask, int(self._request({"act": "name", "name": name})))
        except KeyError:
            raise NameError(name) from None

    def _ask(self, act: str, on: int, arguments: Sequence[Any] = (), named: Mapping[str, Any] = NONE) -> Any:
        coded = [encode(one, _handle) for one in arguments]
        more = {key: encode(one, _handle) for key, one in named.items()}
        return self._request({"act": act, "on": on, "arguments": coded, "named": more})

    def _request(self, asked: dict[str, Any]) -> Any:
        try:
            send(self._channel, {"on": None, "arguments": [], **asked})
        except OSError as error:
            raise Ended from error
        answer = self._receive()
        if "error" in answer:
            kind = getattr(builtins, str(answer["error"]), None)
            raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else Raised)
        try:
            return decode(answer["value"], lambda number: Remote(self._ask, number))
        except Exception as error:
            raise Ended from error

    def _receive(self) -> dict[str, Any]:
        try:
            answer = receive(self._channel)
        except (EOFError, OSError, ValueError, RecursionError) as error:
            raise Ended from error
        if not isinstance(answer, dict):
            raise Ended
        return answer


def _handle(value: Any) -> int:
    if isinstance(value, Remote):
        return int(object.__getattribute__(value, "_number"))
    raise TypeError(f"a {type(value).__name__} of the tests does not pass to the program")


def main(jobs: int, verdicts: int, seconds: int) -> int:
    """Judges the next program on `jobs`, says how on `verdicts`, and returns the exit code.

    The program's process is made before the tests are read, so that it cannot find them in its memory.
    """
    os.setsid()  # one group to kill, which neither process can leave
    kernel.die_with_parent()
    source = json.loads(_frame(jobs))
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        program.main(theirs.fileno(), source, seconds, MEMORY_BYTES)
    theirs.close()
    tests = json.loads(_frame(jobs))
    os.close(jobs)
    os.write(verdicts, READ)
    kernel.set_limits(seconds, MEMORY_BYTES)
    kernel.refuse_system_calls()
    passed = True
    for passed in _run(Program(ours.fileno()), tests):
        os.write(verdicts, PASSED if passed else FAILED)
    ours.close()
    return LOST if not passed and _killed_from_outside(child, seconds) else 0


def _run(tested: Program, tests: dict[str, Any]) -> Iterator[bool]:
    """Whether each test passes, in order."""
    space: dict[str, Any] = {"__name__": "tests"}
    failed = False
    try:
        if not tested.loaded():
            raise Ended
        stand_ins = {name: tested.name(name) for name in tests["names"]}
        space.update(stand_ins)
        exec(compile(tests["setup"], "<setup>", "exec"), space)
        space.update(stand_ins)  # a setup may hold the head of the function to write
    except BaseException:
        failed = True
    for number, test in enumerate(tests["tests"]):
        passed = False
        if not failed:
            try:
                exec(compile(test, f"<test {number}>", "exec"), space)
                passed = True
            except Ended:
                failed = True
            except BaseException:
                pass
        yield passed


def _killed_from_outside(child: int, seconds: int) -> bool:
    """Whether a program was killed, which cannot do so itself, before its time was over."""
    for _ in range(20):  # what ends closes its channel a moment before
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            return killed and used.ru_utime + used.ru_stime < seconds
        time.sleep(0.005)
    return False


def _frame(jobs: int) -> bytes:
    return read_exactly(jobs, int.from_bytes(read_exactly(jobs, 8), "big"))
