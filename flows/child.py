"""A command whose output goes into a log while it runs: whole lines, and secrets masked."""

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.output import Lines, masker
from tasks.runner.processes import Child

# Seconds that a child has to save its state when it is stopped. Prefect kills a cancelled flow after 30.
GRACE = 25.0
TAIL = 20  # lines
_running: set[Child] = set()
_stopping = threading.Event()


class Stopped(BaseException):
    """The command was stopped by another thread."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and its last lines, masked."""

    code: int
    tail: list[str]


def run(
    command: Sequence[str],
    emit: Callable[[str], None],
    environment: Mapping[str, str],
    folder: Path,
    grace: float = GRACE,
) -> Ended:
    """Runs a command to its end and passes on what it prints as it prints it.

    Whatever ends this function, or this process, ends the command and all that it has started: they are
    interrupted as by Ctrl-C, once, so that a trainer saves its state, and killed after the grace.

    Args:
        emit: takes a line of output; values of secret variables in `environment` are masked.

    Raises:
        Stopped: in a block of `stopping_together`, which has ended by an exception.
    """
    mask = masker(environment)
    tail: deque[str] = deque(maxlen=TAIL)

    def log(line: str) -> None:
        tail.append(mask(line))
        emit(tail[-1])

    if _stopping.is_set():
        raise Stopped
    lines = Lines(log)
    unbuffered = {**environment, "PYTHONUNBUFFERED": "1"}
    with Child(command, unbuffered, folder, grace=grace, stdout=subprocess.PIPE) as child:
        _running.add(child)
        try:
            child.read(lines.feed)
        except BaseException:
            child.stop()
            child.read(lines.feed)
            raise
        finally:
            _running.discard(child)
            lines.close()
    if _stopping.is_set():
        raise Stopped
    return Ended(child.process.returncode, list(tail))


@contextmanager
def stopping_together() -> Iterator[None]:
    """For commands that other threads run: an exception in this one, where signals arrive, stops them all."""
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        for child in list(_running):
            child.stop()
        raise
