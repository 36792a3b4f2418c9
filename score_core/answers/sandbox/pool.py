"""Judges many programs side by side in sandboxes, and finds out which kind of sandbox this machine has."""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

from score_core.answers.sandbox.jail import contents
from score_core.answers.sandbox.server import HEADER
from score_core.errors import UserError

log = logging.getLogger(__name__)
MAX_PROCESSES = 32
START_SECONDS = 30.0
SPARE_SECONDS = 5.0  # over the wall-clock limit, which the sandbox keeps itself; then it stands still
INTERPRETER = str(Path(sys.executable).resolve())  # not the environment's, whose packages stay outside
CODE = Path(__file__).resolve().parents[3]
FILES = ("score_core/__init__.py", "score_core/answers/__init__.py", "score_core/answers/sandbox")


class Job(NamedTuple):
    """A program and its tests.

    Attributes:
        preamble: runs before the program, in its process.
        names: what the tests use of the program.
        setup: runs before the tests, in theirs.
        tests: each passes if it runs to its end without an exception.
    """

    program: str
    preamble: str
    names: tuple[str, ...]
    setup: str
    tests: tuple[str, ...]


class Lost(Exception):  # noqa: N818 - no error of the program's
    """A sandbox is gone, or stands still, and its verdict with it."""


class Pool:
    """Sandboxes, one a processor, that start with the first job and end with this object.

    Args:
        seconds: CPU time of a program, rounded up; twice that of wall-clock time ends it, too.
        sandboxed: False leaves out the namespaces: programs may read and write what this user may.

    Raises:
        UserError: no sandbox can be had on this machine.
    """

    def __init__(self, seconds: float, sandboxed: bool = True) -> None:
        self._command = mechanism().command if sandboxed else _command("none")
        if not sandboxed:
            log.warning("reward.sandbox: none, so programs that a model writes may do what this user may")
        self._seconds = seconds
        self._own()

    def judge_all(self, jobs: Sequence[Job]) -> list[tuple[bool, ...] | None]:
        """Which tests each program passes, in order; None where no verdict could be had, twice."""
        if self._owner != os.getpid():  # the pipes are still the parent's
            self._own()
        processes = min(len(jobs), len(os.sched_getaffinity(0)), MAX_PROCESSES)
        if processes <= 1:
            return [self._judge(job) for job in jobs]
        with ThreadPoolExecutor(processes) as threads:
            return list(threads.map(self._judge, jobs))

    def _own(self) -> None:
        self._idle: list[Sandbox] = []
        self._owner = os.getpid()
        weakref.finalize(self, _end_all, self._idle, self._owner)

    def _judge(self, job: Job) -> tuple[bool, ...] | None:
        for _ in range(2):  # a verdict lost with its sandbox is asked of a fresh one
            sandbox = None
            try:
                with contextlib.suppress(IndexError):
                    sandbox = self._idle.pop()  # atomic, so each thread has its own
                sandbox = sandbox or Sandbox(self._command)
                passed = sandbox.judge(job, self._seconds)
            except (Lost, OSError) as error:
                log.warning("a sandbox was lost (%s)", error)
                if sandbox is not None:
                    sandbox.end()
            else:
                self._idle.append(sandbox)
                return passed
        return None


class Sandbox:
    """One sandbox, which judges one job at a time (`score_core/answers/sandbox/server.py`).

    Raises:
        Lost: it does not start; the message says why.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},  # nothing of the user's; sets in one order
            start_new_session=True,  # ends with its input, and Ctrl-C is not for it
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except Lost as error:
            self.end()
            said = self._process.stderr.read().decode(errors="replace").split("\n")
            raise Lost(next(filter(None, map(str.strip, reversed(said))), str(error))) from None

    def judge(self, job: Job, seconds: float) -> tuple[bool, ...]:
        """Which tests the program passes within its time.

        Raises:
            Lost: the sandbox, or what runs in it, was ended from outside, or stands still.
        """
        wall = 2 * seconds
        deadline = time.monotonic() + wall + SPARE_SECONDS
        program = {"preamble": job.preamble, "program": job.program}
        tests = {"names": job.names, "setup": job.setup, "tests": job.tests}
        self._send(HEADER.pack(seconds, wall) + _frame(program) + _frame(tests), deadline)
        result = self._receive(deadline)
        if result["end"] == "lost":
            raise Lost("a program was killed from outside")
        passed = [mark == "1" for mark in result["passed"]]
        return tuple(passed + [False] * (len(job.tests) - len(passed)))

    def end(self) -> None:
        """Ends it and all that runs in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self._in], [], left)[1]:
                raise Lost("it takes no job")
            view = view[os.write(self._in, view) :]

    def _receive(self, deadline: float) -> dict[str, Any]:
        data = b""
        while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "big"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise Lost("it gives no answer")
            part = os.read(self._out, 1 << 16)
            if not part:
                raise Lost("it has ended")
            data += part
        result: dict[str, Any] = json.loads(data[8:])
        return result


class Mechanism(NamedTuple):
    """A kind of sandbox, and the command that starts one."""

    name: str
    command: tuple[str, ...]


@cache
def mechanism() -> Mechanism:
    """The kind of sandbox that this machine has: bubblewrap, else namespaces made here; tried, not guessed.

    Raises:
        UserError: neither; it says why.
    """
    kinds = [Mechanism("bubblewrap", _bubblewrap())] if which("bwrap") else []
    kinds.append(Mechanism("namespaces", _command("namespaces")))
    reasons = []
    for kind in kinds:
        try:
            Sandbox(kind.command).end()
            log.info("programs run in a sandbox of %s", kind.name)
            return kind
        except (Lost, OSError) as error:
            reasons.append(f"{kind.name}: {error}")
    raise UserError(
        "reward.matcher: code_tests runs programs that a model writes, and this machine has no sandbox for "
        f"them ({'; '.join(reasons)}); install bubblewrap, allow unprivileged user namespaces; or, where "
        "programs may read and write what this user may, set reward.sandbox: none."
    )


def _command(kind: str, code: Path = CODE) -> tuple[str, ...]:
    start = f"import sys; sys.path.append({str(code)!r}); "
    start += f"from score_core.answers.sandbox.server import main; main({kind!r})"
    # Neither the user's packages nor the folder that this is started from.
    return (INTERPRETER, "-P", "-s", "-S", "-B", "-c", start)


def _bubblewrap() -> tuple[str, ...]:
    links, folders = contents()
    inside = Path("/code")
    arguments = ["--unshare-all", "--as-pid-1", "--cap-drop", "ALL", "--uid", "65534", "--gid", "65534"]
    for path, target in links.items():
        arguments += ["--symlink", target, path]
    for path in (*folders, INTERPRETER):
        arguments += ["--ro-bind", path, path]
    for name in FILES:
        arguments += ["--ro-bind", str(CODE / name), str(inside / name)]
    arguments += ["--dev-bind", os.devnull, os.devnull, "--remount-ro", "/", "--chdir", "/", "--"]
    return (which("bwrap") or "bwrap", *arguments, *_command("bubblewrap", inside))


def _frame(value: dict[str, Any]) -> bytes:
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "big") + text


def _end_all(sandboxes: list[Sandbox], owner: int) -> None:
    if os.getpid() == owner:
        for sandbox in sandboxes:
            sandbox.end()
