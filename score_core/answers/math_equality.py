"""Equality of mathematical expressions under a time limit that holds in any thread or process.

math-verify's own limit is an alarm signal, which works in a main thread only and cannot stop
arithmetic inside the interpreter. Here comparisons run in helper processes that the kernel stops;
see `score_core/answers/math_worker.py`. A helper that dies is replaced, and its comparison is "not equal".
"""

import json
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MAX_PROCESSES = 8


class MathEquality:
    """Compares pairs of LaTeX or plain expressions.

    Args:
        seconds: CPU time that one comparison may take.

    Processes start with the first comparison and end with this object.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: list[_Worker] = []
        self._owner = os.getpid()

    def equal_all(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the two of each (gold, answer) pair are equal, in order."""
        if self._owner != os.getpid():
            # After a fork the pipes are still the parent's; two users would read each other's answers.
            self._idle, self._owner = [], os.getpid()
        processes = min(len(pairs), len(os.sched_getaffinity(0)), MAX_PROCESSES)
        if processes <= 1:
            return [self._equal(pair) for pair in pairs]
        with ThreadPoolExecutor(processes) as threads:
            return list(threads.map(self._equal, pairs))

    def _equal(self, pair: tuple[str, str]) -> bool:
        try:
            worker = self._idle.pop()  # atomic, so each thread has a worker of its own
        except IndexError:
            worker = _Worker(self._seconds)
        verdict = worker.equal(pair)
        if verdict is None:
            worker.close()
            return False
        self._idle.append(worker)
        return verdict


class _Worker:
    """One helper process."""

    def __init__(self, seconds: float) -> None:
        script = Path(__file__).with_name("math_worker.py")
        # -P keeps this package's folder off the helper's path, where its file names would hide others.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self.close = weakref.finalize(self, _end, self._process, os.getpid())

    def equal(self, pair: tuple[str, str]) -> bool | None:
        """The verdict, or None if the process ended over it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(pair) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        verdict = self._process.stdout.readline().strip()
        return verdict == "1" if verdict else None


def _end(process: subprocess.Popen[str], owner: int) -> None:
    if os.getpid() == owner:  # in a fork of the owner the helper is still the owner's
        process.kill()
        process.communicate()
