"""A stage as a Prefect task: asks DVC whether it is up to date, and if not has DVC run it."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State

from flows.child import Ended, run
from flows.dag import BUSY, BUSY_SECONDS, ROOT, Stage, reason

USER_MISTAKE = 2  # exit code of the commands in tasks/ for what only the user can fix
REFUSED = "Refused"  # name of the state that follows from it, whose type is Failed
RETRY_DELAY = 10  # seconds
REPORT_SECONDS = 60  # for telling the server how a stopped run ended
ERROR = re.compile(r"(ERROR|error|Traceback)\b|.* ERROR ")
# DVC's hints for users at a terminal.
ADVICE = re.compile(r"To track the changes|\s*git add |To enable auto staging|\s*dvc config |Use `dvc push`")
WARNING = re.compile(r"(WARNING|warning)\b|.* WARNING ")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        state: "Cached", "Completed", "Failed", "Refused" or "not reached".
        why: DVC's reason to run it, or how it failed.
    """

    stage: str
    state: str
    why: str = ""
    seconds: float = 0.0


def reproduce_stage(
    stage: Stage,
    force: bool,
    retries: int,
    root: Path = ROOT,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Outcome, State]:
    """Brings one stage up to date as a task run named after it.

    Call it in the main thread, or in `child.stopping_together`: a signal has to stop the trainer, and signals
    reach the main thread only.

    Args:
        force: run it although nothing changed.
        retries: how often a failed stage is run again, which resumes it; not after a user's mistake.
        environment: variables that the stage gets beside this process's.
    """
    named = _stage.with_options(name=stage.name, task_run_name=stage.name, retries=retries)
    started = time.monotonic()
    state = named(stage.name, stage.command, force, str(root), dict(environment), return_state=True)
    why = state.message or ""
    return Outcome(stage.name, state.name, why.splitlines()[0], time.monotonic() - started), state


def worth_retrying(task: object, task_run: object, state: State[Any]) -> bool:
    """Whether another try may help; against a user's mistake it does not."""
    return state.name != REFUSED


# The cache is DVC's; a second one could contradict it.
@task(
    persist_result=False,
    cache_policy=NO_CACHE,
    retry_delay_seconds=RETRY_DELAY,
    retry_condition_fn=worth_retrying,
)
def _stage(stage: str, command: str, force: bool, root: str, environment: dict[str, str]) -> State:
    logger = get_run_logger()
    why = "forced" if force else reason(stage, Path(root))
    if why is None:
        logger.info("%s is up to date", stage)
        return Completed(name="Cached", message="up to date")
    logger.info("%s is stale: %s", stage, why)

    def log(line: str) -> None:
        if not ADVICE.match(line):
            logger.log(_level(line), "%s", line)

    command_line = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]

    def reproduce() -> Ended:
        return run(
            command_line + (["--force"] if force else []),
            emit=log,
            environment=child_environment() | environment,
            folder=Path(root),
        )

    try:
        while (ended := reproduce()).code != 0 and any(BUSY in line for line in ended.tail):
            logger.warning("waiting for another run of DVC, which holds files of %s", stage)
            time.sleep(BUSY_SECONDS)
    except Exception:
        raise
    except BaseException:
        # Stopped. Prefect reports that to its server, and would wait for ever if the server is gone.
        signal.alarm(REPORT_SECONDS)
        raise
    if ended.code != 0:
        failed = failure(stage, command, ended.code, ended.tail)
        logger.error("%s", failed.message)
        return failed
    if any("is cached - skipping run" in line for line in ended.tail):
        return Completed(name="Cached", message=f"restored from the run cache; {why}")
    return Completed(message=why)


def failure(stage: str, command: str, code: int, tail: list[str]) -> State:
    """The state of a stage that failed, with a message whose first line stands for itself.

    Args:
        code: DVC's, which is 255 whatever the stage's own was.
        tail: the last lines of output.
    """
    own = re.search(r"exited with (-?\d+)", "\n".join(tail))
    how = (
        f"exited with {own[1]}" if own else f"DVC was killed by signal {-code}" if code < 0 else "DVC failed"
    )
    mistake = own is not None and int(own[1]) == USER_MISTAKE
    remedy = "Fix the error above, then run" if mistake else "To resume, run"
    shown = "\n".join(f"    {line}" for line in tail)
    message = (
        f"{stage} failed: `{command}` {how}.\n"
        f"Its last output:\n{shown}\n"
        f"{remedy} it again: `make flow`, or Run on the deployment's page, or `dvc repro {stage}`. "
        "Finished stages are kept, and an interrupted one resumes from its last checkpoint."
    )
    return Failed(name=REFUSED, message=message) if mistake else Failed(message=message)


def child_environment() -> dict[str, str]:
    """This process's environment, with its own Python in front."""
    # The commands in dvc.yaml say `python`: this one, also where no environment was activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path}


def _level(line: str) -> int:
    return logging.ERROR if ERROR.match(line) else logging.WARNING if WARNING.match(line) else logging.INFO
