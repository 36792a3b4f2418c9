"""A command as a child process whose end is certain: with its output streamed, and no orphans."""

import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.leash import leashed
from flows.output import Lines, masker

# Seconds that a child has to save its state when it is stopped. Prefect kills a cancelled flow after 30.
GRACE = 25.0
TAIL = 20  # lines


@dataclass(frozen=True)
class Ended:
    """A child that ended by itself: its exit code and its last lines, masked."""

    code: int
    tail: list[str]


def run(
    command: Sequence[str],
    emit: Callable[[str], None],
    environment: Mapping[str, str],
    folder: Path,
    grace: float = GRACE,
) -> Ended:
    """Runs a command in a process group of its own, and passes on what it prints as it prints it.

    Whatever ends this function ends the whole group: it is interrupted as by Ctrl-C, once, so that it can
    save its state, and killed after the grace. The same happens if this process dies: see flows/leash.py.
    To be called in the main thread, where signals arrive, and on which the kernel's promise hangs.

    Args:
        emit: takes a line of output, masked.
        environment: of the child; values of its secret variables are masked in the output.
        folder: where to run.
    """
    mask = masker(environment)
    tail: deque[str] = deque(maxlen=TAIL)

    def say(line: str) -> None:
        line = mask(line)
        tail.append(line)
        emit(line)

    lines = Lines(say)
    child = subprocess.Popen(
        leashed(*command),
        cwd=folder,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    try:
        _pump(child, lines, grace)
    except BaseException:
        _signal(child, signal.SIGINT)
        _pump(child, lines, grace, stopping=True)
        raise
    finally:
        _signal(child, signal.SIGKILL)
        lines.close()
        child.wait()
        assert child.stdout
        child.stdout.close()
    return Ended(child.returncode, list(tail))


def _pump(child: subprocess.Popen, lines: Lines, grace: float, stopping: bool = False) -> None:
    """Reads until the last of the group has closed its output and the child has ended, or for the grace.

    The grace runs when the child is being stopped, and when it has gone and left others behind, which are
    interrupted then.
    """
    assert child.stdout
    output = child.stdout.fileno()
    deadline = time.monotonic() + grace if stopping else None
    while deadline is None or time.monotonic() < deadline:
        if select.select([output], [], [], 0.5)[0]:
            data = os.read(output, 1 << 16)
            if not data:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(None if deadline is None else grace)
                return
            lines.feed(data)
        if deadline is None and child.poll() is not None:
            deadline = time.monotonic() + grace
            _signal(child, signal.SIGINT)


def _signal(child: subprocess.Popen, number: int) -> None:
    """To all that is left of the child's group."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
