"""Child processes that end with the block that started them, and with this process, however it dies.

    python tasks/runner/processes.py PARENT SIGNAL GRACE COMMAND...     the watchdog between the two

A child runs in a process group of its own, below a watchdog. If the parent dies, even by SIGKILL, the
kernel signals the watchdog, which stops the group as `Child.stop` does. The kernel could signal the command
itself, but not what the command has started through a shell.

Only the standard library is imported, so that a watchdog starts quickly.
"""

import ctypes
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
GRACE = 40.0  # seconds; torch's launcher and Prefect's worker give their own children 30


def end_with_parent(parent: int | None = None, number: int = signal.SIGTERM) -> None:
    """Has the kernel send this process a signal when the thread that started it ends, even by SIGKILL.

    Only Linux does; elsewhere a killed parent leaves its children.

    Args:
        parent: the expected parent; if it is no longer the parent, the signal is raised at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        signal.raise_signal(number)


class Child:
    """A command in a process group of its own, none of which outlives the `with` block or this process.

    Its thread has to outlive it: the kernel takes a thread's end for the process's. `process` is the
    watchdog, which ends as the command does: with its exit code or by its signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None = None,
        *,
        stop_signal: signal.Signals = signal.SIGINT,
        grace: float = GRACE,
        stdout: int | None = None,
    ) -> None:
        """
        Args:
            stop_signal: asks the group to save its state and end.
            grace: seconds from then until what is left is killed.
            stdout: `subprocess.PIPE` for both streams as one, to be read by `read`, or the number of an open
                file for both; None inherits them.
        """
        self.stop_signal, self.grace, self.deadline = stop_signal, grace, math.inf
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(os.getpid()), str(int(stop_signal)), str(grace), *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stdout and subprocess.STDOUT,
            process_group=0,
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self.process.poll() is None:
                self.stop()
                self.wait()
        finally:
            self._signal(signal.SIGKILL)
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()

    def stop(self) -> None:
        """Asks the whole group to end, once. The grace runs from here."""
        if self.deadline == math.inf:
            self.deadline = time.monotonic() + self.grace
            self._signal(self.stop_signal)

    def wait(self) -> None:
        """Waits for the command to end, or for the grace to."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.deadline - time.monotonic())

    def read(self, feed: Callable[[bytes], None]) -> None:
        """Passes on the output until the command and all that it has started have ended, or the grace has.

        What the command leaves behind when it ends is stopped.
        """
        assert self.process.stdout
        output = self.process.stdout.fileno()
        while time.monotonic() < self.deadline:
            if select.select([output], [], [], 0.5)[0]:
                data = os.read(output, 1 << 16)
                if not data:
                    break
                feed(data)
            if self.process.poll() is not None:
                self.stop()
        self.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _set(handler: signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _watch(parent: int, stop_signal: int, grace: float, command: list[str]) -> None:
    _set(signal.SIG_DFL)  # which the command inherits: a shell's background jobs ignore Ctrl-C
    child = subprocess.Popen(command)
    _set(signal.SIG_IGN)  # what is sent to the group is for the command, and this process ends after it
    signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(128 + number))
    try:
        end_with_parent(parent, signal.SIGHUP)
        code = child.wait()
    except SystemExit:
        os.killpg(0, stop_signal)
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace)
        os.killpg(0, signal.SIGKILL)  # this process too
        raise
    _set(signal.SIG_DFL)
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
