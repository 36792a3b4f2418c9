"""How a command line begins, and the one place that turns what happened into an exit code and a line.

    0      done
    2      a mistake that the user can mend: one line on standard error
    75     (EX_TEMPFAIL) training was stopped and has saved, or another process of the run is lost: a
           scheduler should run the same command again
    130    interrupted
    141    what read standard output has closed it
    143    terminated

Anything else is a bug and keeps its traceback, but for what is the machine's fault (faults.py). Of the many
processes of one run (see launch.py) the first to end badly speaks, and leaves the code for the process that
started them.
"""

import argparse
import atexit
import io
import logging
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn

from score_core.errors import Stopped, UserError
from tasks.runner.faults import fault

log = logging.getLogger(__name__)
ENDING = "SCORE_ENDING"  # names the file in which one of many processes leaves the exit code


def parser_of(module: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m MODULE`, where `doc`, the module's docstring, is what --help says."""
    style = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"python -m {module}", description=doc, formatter_class=style)


def exit_code(name: str, work: Callable[[], object]) -> int:
    """Calls `work` and returns the exit code, having said on standard error why it is not 0.

    Args:
        name: of the command or stage, for the messages.
    """
    _open_streams(name)
    code, message = _outcome(name, work)
    if ENDING in os.environ and code != 0 and not leave_code(code):
        message = None
    if message is not None:
        print(message, file=sys.stderr, flush=True)
    return code


def leave_code(code: int) -> bool:
    """Leaves the exit code for what started this one of many processes; False if another has before."""
    try:
        with open(os.environ[ENDING], "x") as file:  # noqa: PTH123
            file.write(str(code))
    except FileExistsError:
        return False
    return True


def _outcome(name: str, work: Callable[[], object]) -> tuple[int, str | None]:
    try:
        _check_interpreter()
        work()
        sys.stdout.flush()
    except UserError as error:
        log.debug("", exc_info=error)
        return 2, f"error: {' '.join(str(error).split())}"  # keys and texts of the user's may hold newlines
    except Stopped as stopped:
        return os.EX_TEMPFAIL, f"{name}: {stopped}; the same command goes on from there"
    except KeyboardInterrupt:
        return 130, f"{name}: interrupted; the same command starts it again"
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1, None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            # The interpreter would try once more to say what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141, f"{name}: what read standard output has closed it, so this ends here"
        if (said := fault(error)) is not None:
            log.debug("", exc_info=error)
            return 2, f"error: {said}"
        if not _lost_peer(error):
            raise
        log.debug("", exc_info=error)
        return os.EX_TEMPFAIL, (
            f"{name}: another process of this run has ended or cannot be reached, so this one ends too; "
            "what it said stands above or in its machine's log; the same command, on every machine, "
            f"starts it again ({' '.join(str(error).split())[:200]})"
        )
    return 0, None


def _open_streams(name: str) -> None:
    """Lets nothing that is said or typed end the command, whatever the locale; says it if nobody listens."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    if sys.stdout is None:
        # Else a file that is opened later takes its number, and what a child says ends up in it.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        print(f"{name}: standard output is closed, so nothing is said there", file=sys.stderr)


def _check_interpreter() -> None:
    if not __debug__:
        raise UserError(
            "python -O, or PYTHONOPTIMIZE in the environment, leaves out checks of the results; run without."
        )
    if "WORLD_SIZE" in os.environ and ENDING not in os.environ:
        raise UserError(
            "WORLD_SIZE in the environment: left by torchrun, or set by a job; launch in runtime.yaml says "
            "how many processes there are; run the command with `env -u WORLD_SIZE -u RANK -u LOCAL_RANK`."
        )


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _lost_peer(error: Exception) -> bool:
    """Whether `error` says that another process of the run is gone or cannot be reached."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_initialized():
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def is_first() -> bool:
    """Whether this is the process of a run that writes its outputs."""
    return ENDING not in os.environ or os.environ.get("RANK") == "0"


def leave() -> NoReturn:
    """Ends one of many processes, whose work is done, without the interpreter's own shutdown.

    In that shutdown a thread of torch's that still wants the interpreter now and then aborts the process,
    and the launcher takes a finished stage for a failed one. The exit code is in the file by now.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
