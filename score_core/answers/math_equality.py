"""Equality of mathematical expressions under a time limit that holds in any thread or process.

Computer algebra may take any time on what a model writes, and math-verify's own limit is an alarm signal,
which works in a main thread only. Here helper processes (`score_core/answers/math_worker.py`) compare, and
the kernel stops them. A helper that dies is replaced, and its comparison is "not equal".
"""

import contextlib
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
        self._own()

    def equal_all(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the two of each (gold, answer) pair are equal, in order."""
        if self._owner != os.getpid():
            # After a fork the pipes are still the parent's; two users would read each other's answers.
            self._own()
        processes = min(len(pairs), len(os.sched_getaffinity(0)), MAX_PROCESSES)
        if processes <= 1:
            return [self._equal(pair) for pair in pairs]
        with ThreadPoolExecutor(processes) as threads:
            return list(threads.map(self._equal, pairs))

    def _own(self) -> None:
        self._idle: list[subprocess.Popen[str]] = []
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._idle, self._owner)

    def _equal(self, pair: tuple[str, str]) -> bool:
        try:
            helper = self._idle.pop()  # atomic, so each thread has a helper of its own
        except IndexError:
            helper = _start(self._seconds)
        assert helper.stdin is not None and helper.stdout is not None
        verdict = ""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(pair), file=helper.stdin, flush=True)
            verdict = helper.stdout.readline().strip()
        if verdict:
            self._idle.append(helper)
        else:
            _end([helper], self._owner)
        return verdict == "1"


def _start(seconds: float) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("math_worker.py")
    return subprocess.Popen(
        # -P keeps this package's folder off the helper's path, where its file names would hide others.
        [sys.executable, "-P", str(script), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


def _end(helpers: list[subprocess.Popen[str]], owner: int) -> None:
    if os.getpid() == owner:  # in a fork of the owner the helpers are still the owner's
        for helper in helpers:
            helper.kill()
            helper.communicate()
