"""`accelerate launch`, which takes a process that was killed for a lost one.

    python -m tasks.runner.accelerate_launch ...    (its own command line)

A process whose Python lives leaves its exit code itself (exits.py). Two ends leave no time for that:

* SIGABRT: NCCL has a watchdog thread in each process, which aborts it when a collective operation fails or
  takes too long because another process is gone (torch's ProcessGroupNCCL, unless
  TORCH_NCCL_ASYNC_ERROR_HANDLING is 0 or 2). Where the main thread is told first it raises DistBackendError,
  which exits.py answers.
* SIGKILL: by the kernel where memory runs out, or by hand.

A CUDA error has the watchdog abort, too, and is not told from a lost process; the output says which it was.
"""

import os
import signal
import sys

from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from tasks.runner.exits import ENDING, leave_code

KILLED = {-signal.SIGABRT, -signal.SIGKILL}
ENDED = {-signal.SIGTERM}  # by the launcher, once one of them had failed


def was_killed(error: ChildFailedError) -> bool:
    """Whether the processes that failed did so by a signal that leaves no time for an exit code."""
    codes = {failure.exitcode for failure in error.failures.values()} - ENDED
    return bool(codes) and codes <= KILLED


if __name__ == "__main__":
    try:
        main()
    except ChildFailedError as error:
        if ENDING not in os.environ or not was_killed(error):
            raise
        said = error.get_first_failure()[1].message
        print(
            f"a process of this run was killed ({said}): by NCCL because another one is lost, or for want of "
            "memory; what it said stands above; the same command, on every machine, starts it again",
            file=sys.stderr,
            flush=True,
        )
        leave_code(os.EX_TEMPFAIL)
        sys.exit(os.EX_TEMPFAIL)
