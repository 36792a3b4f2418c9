"""A leash on a command: it ends when the process that started it dies, even by SIGKILL.

    python flows/leash.py PARENT COMMAND...     runs COMMAND for process number PARENT

To be started as the head of a process group of its own. When PARENT dies, or on SIGTERM, the group is
interrupted as by Ctrl-C, so that a trainer can save its state, and killed after a grace. The kernel tells
of the death; it would tell the command itself as well, but not what that started through a shell.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
GRACE = 30.0  # seconds


def end_with_parent(parent: int) -> None:
    """Has the kernel send this process SIGTERM when process `parent`, which started it, dies.

    Only Linux does; elsewhere a killed parent leaves its children.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was quicker
        sys.exit(128 + signal.SIGTERM)


def leashed(*command: str) -> list[str]:
    """The command line that runs `command` on a leash of this process."""
    return [sys.executable, __file__, str(os.getpid()), *command]


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _main(parent: int, command: list[str]) -> None:
    # Handlers, and not "ignore": the command starts with the defaults, even below a shell's background job.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.signal(signal.SIGTERM, _stop)
    end_with_parent(parent)
    child = subprocess.Popen(command)
    try:
        code = child.wait()
    except SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
        os.killpg(0, signal.SIGKILL)
        raise
    if code < 0:  # ends as the command did
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
