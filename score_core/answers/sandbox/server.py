"""Stays in a sandbox and forks a judge for each program: some milliseconds, and an interpreter takes 20.

Started by `score_core/answers/sandbox/pool.py` as a process of its own, which imports nothing but Python's
library and this package. It reads jobs from standard input and writes what became of them to standard output:

    job     how many seconds of CPU time and of wall-clock time (two doubles), a frame with the program, a
            frame with the tests
    result  a frame: {"passed": one 0 or 1 for each test judged, "end": "done", "time" or "lost"}
"""

import contextlib
import gc
import importlib
import math
import os
import random
import select
import signal
import struct
import sys
import time

from score_core.answers.sandbox import jail, judge, kernel
from score_core.answers.sandbox.plain_data import read_exactly, send

HEADER = struct.Struct(">dd")
# What programs import most, so that each finds it there.
PRELOADED = (
    *("bisect", "cmath", "collections", "copy", "datetime", "decimal", "enum", "fractions", "functools"),
    *("hashlib", "heapq", "itertools", "json", "math", "operator", "queue", "random", "re", "statistics"),
    *("string", "sys", "typing", "dataclasses", "encodings.idna", "textwrap", "calendar"),
)


def main(mechanism: str) -> None:
    """Serves until standard input closes; says on standard error why it cannot.

    Args:
        mechanism: "namespaces" to enter some first; anything else is in its place already.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in PRELOADED:
        importlib.import_module(name)
    random.seed(0)
    gc.freeze()  # what is here by now stays: a collection would copy its pages into each fork
    try:
        if mechanism == "namespaces":
            jail.enter()
        kernel.drop_privileges()
        _try_filter()
        if mechanism != "none" and (os.getpid() != 1 or os.path.exists("/proc/self")):  # noqa: PTH110
            raise OSError("processes outside can be seen")
    except OSError as error:
        print(error.strerror or error, file=sys.stderr, flush=True)
        os._exit(1)
    jobs, results = os.dup(0), os.dup(1)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    send(results, {"ready": mechanism})
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            seconds, wall = HEADER.unpack(read_exactly(jobs, HEADER.size))
            said, end = _judge(jobs, results, math.ceil(seconds), wall)
            send(results, {"passed": said[1:].decode(), "end": end})
            if not said:
                break  # the judge ended before it had read all of its job: what comes next is no header
    os._exit(0)


def _judge(jobs: int, results: int, seconds: int, wall: float) -> tuple[bytes, str]:
    """What the judge of the next job said, and how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(results)
            os.close(reading)
            code = judge.main(jobs, writing, seconds)
        finally:
            os._exit(code)
    os.close(writing)
    said, ended = _listen(reading, time.monotonic() + wall)
    os.close(reading)
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # its program, where that is still there
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    if not ended or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return said, "time"
    return said, "done" if status == 0 else "lost"


def _listen(reading: int, deadline: float) -> tuple[bytes, bool]:
    """What comes until the other end is closed or the time is over, and whether it was closed."""
    said = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 1 << 16)
            if not part:
                return said, True
            said += part
    return said, False


def _try_filter() -> None:
    """Finds out now whether system calls can be refused."""
    child = os.fork()
    if child == 0:
        try:
            kernel.refuse_system_calls()
            os._exit(0)
        except OSError:
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("the kernel refuses a filter of system calls (seccomp)")
