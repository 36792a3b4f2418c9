"""A leash on a process: it ends when the one that started it dies, even by SIGKILL.

    python flows/leash.py PARENT COMMAND...     becomes COMMAND, a child of process number PARENT

A program of its own, for it is unsafe to run Python between fork and exec where threads are about, and
Prefect has many. The kernel's promise outlives exec; only Linux gives it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def end_with_parent(parent: int) -> None:
    """Has the kernel send this process SIGTERM when process `parent`, which started it, dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was quicker
        sys.exit(128 + signal.SIGTERM)


def leashed(*command: str) -> list[str]:
    """The command line that runs `command` as a child of this process that does not outlive it."""
    return [sys.executable, __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    # A shell's background jobs ignore Ctrl-C, and so would all that they start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])
