"""Equality of mathematical expressions under a time limit that holds in any thread or process.

Computer algebra may take any time on what a model writes, and math-verify's own limit is an alarm signal,
which works in a main thread only. Here helper processes (`score_core/answers/math_worker.py`) compare, and
the kernel stops them.

A comparison that is too slow is "not equal"; one whose helper was lost (killed for memory or by a person, or
stopped) says nothing about its pair. A fresh helper is asked once more, and after that the verdict is None,
which nobody may keep.

Pairs are first tried for a fraction of a second and the slow ones afterwards, so that the verdicts of
ordinary ones do not wait for a power tower.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import psutil

MAX_PROCESSES = 8
QUICK_SECONDS = 0.3  # more than ten times what an ordinary comparison takes
START_SECONDS = 60.0  # until a helper has loaded its algebra; a second or two where nothing else runs
# The limit counts CPU time, so that a busy machine grades as an idle one does. By the clock a helper may take
# this many times as long, unless it stands still: where it has used no CPU for a second it is lost.
PATIENCE = 30.0
STANDSTILL_SECONDS = 1.0

Pair = tuple[str, str]  # gold, answer
EQUAL, UNEQUAL, SLOW, LOST = "1", "0", "slow", "lost"


class MathEquality:
    """Compares pairs of LaTeX or plain expressions.

    Args:
        seconds: CPU time that one comparison may take.
        module: what compares, with a function `equal(gold, answer)` and pairs to begin with, `WARM`.

    Processes start with the first comparison and end with this object.
    """

    def __init__(self, seconds: float, module: str = "score_core.answers.algebra") -> None:
        self._seconds, self._module = seconds, module
        self._own()

    def verdicts(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, bool | None]]:
        """Each distinct pair with whether its two are equal, as they come: quick ones first.

        None where no helper lived to tell.
        """
        if self._owner != os.getpid():
            # After a fork the pipes are still the parent's; two users would read each other's answers.
            self._own()
        open_pairs = list(dict.fromkeys(pairs))
        quick = min(QUICK_SECONDS, self._seconds)
        for seconds, last in ((quick, False), (self._seconds, False), (self._seconds, True)):
            again = []
            for pair, reply in self._ask_all(open_pairs, seconds):
                if reply in (EQUAL, UNEQUAL):
                    yield pair, reply == EQUAL
                elif reply == SLOW and seconds == self._seconds:
                    yield pair, False
                elif last:
                    yield pair, None
                else:
                    again.append(pair)
            open_pairs = again

    def _own(self) -> None:
        self._idle: list[_Helper] = []
        self._owner = os.getpid()
        weakref.finalize(self, _end_all, self._idle, self._owner)

    def _ask_all(self, pairs: Sequence[Pair], seconds: float) -> Iterator[tuple[Pair, str]]:
        processes = min(len(pairs), len(os.sched_getaffinity(0)), MAX_PROCESSES)
        if processes <= 1:
            yield from ((pair, self._ask(pair, seconds)) for pair in pairs)
            return
        with ThreadPoolExecutor(processes) as threads:
            asked = {threads.submit(self._ask, pair, seconds): pair for pair in pairs}
            for done in as_completed(asked):
                yield asked[done], done.result()

    def _ask(self, pair: Pair, seconds: float) -> str:
        try:
            helper = self._idle.pop()  # atomic, so each thread has a helper of its own
        except IndexError:
            helper = _Helper(self._module)
        reply = helper.ask(pair, seconds)
        if reply == LOST:
            helper.end()
        else:
            self._idle.append(helper)
        return reply


class _Helper:
    """One helper process, in a process group of its own with the child that does its comparisons."""

    def __init__(self, module: str) -> None:
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            # -P keeps the working directory off the helper's path, where its file names would hide others.
            [sys.executable, "-P", "-m", "score_core.answers.math_worker", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(root)},
        )
        self._ready = False

    def ask(self, pair: Pair, seconds: float) -> str:
        """`EQUAL`, `UNEQUAL`, `SLOW`, or `LOST`, after which this helper is of no more use."""
        if not self._ready:
            self._ready = self._reply(START_SECONDS, START_SECONDS) == "ready"
        request = json.dumps([*pair, seconds]).encode() + b"\n"
        assert self._process.stdin is not None
        # A request is shorter than a pipe holds, so a helper that stands still does not block it.
        with contextlib.suppress(BrokenPipeError):
            if self._ready:
                self._process.stdin.write(request)
                return self._reply(PATIENCE * seconds, STANDSTILL_SECONDS)
        return LOST

    def _reply(self, patience: float, standstill: float) -> str:
        """The next line; `LOST` where none comes, or nothing goes on for too long (seconds by the clock)."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        deadline, used = time.monotonic() + patience, -1.0
        while not poll.poll(standstill * 1000):
            before, used = used, self._cpu_seconds()
            if used == before or time.monotonic() > deadline:
                return LOST
        # A line is short and written in one piece. Two of them: the helper lost its child after it answered.
        line = os.read(self._process.stdout.fileno(), 64).decode().strip()
        return line if line in ("ready", EQUAL, UNEQUAL, SLOW) else LOST

    def _cpu_seconds(self) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            times = [one.cpu_times() for one in (process, *process.children())]
            return sum(one.user + one.system for one in times)
        return 0.0

    def end(self) -> None:
        """Ends the process and its child."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # where it was ended before it had a group
        self._process.communicate()


def _end_all(helpers: list[_Helper], owner: int) -> None:
    if os.getpid() == owner:  # in a fork of the owner the helpers are still the owner's
        for helper in helpers:
            helper.end()
