"""The matrix of experiments/compare as a Prefect flow: one task run for each cell that is stale.

    python -m flows.compare                    by params.yaml as it is
    python -m flows.compare --profile gsm8k    select a profile first
    python -m flows.compare --jobs 2           so many cells side by side

A cell that fails stops only what needs it; the page shows it as failed. An interrupted matrix goes on where
it was. Exit codes: 0, 1 if cells failed, 2 for a mistake that the user can fix.
"""

import os
import re
import sys
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextvars import copy_context

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State

from flows import results
from flows.artifacts import show_stages
from flows.child import run, stopping_together
from flows.connection import connect
from flows.dag import ROOT, Stage, plan, read_stages, some
from flows.notify import hooks
from flows.reproduce import select_profile
from flows.stages import REFUSED, USER_MISTAKE, Outcome, child_environment, reproduce_stage
from score_core.errors import UserError
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.lock import accelerators, exclusive
from tasks.runner.processes import end_with_parent

MATRIX = ROOT / "experiments" / "compare"
DONE = ("Cached", "Completed")
FIRST = ("code", "settings")  # what the others are compared with: code may always have changed


@flow(
    name="compare",
    persist_result=False,
    on_completion=hooks(),
    on_failure=hooks(),
    on_crashed=hooks(),
    on_cancellation=hooks(),
)
def compare(profile: str | None = None, retries: int = 1, jobs: int = 1) -> State:
    """Brings every method on every seed up to date, and the page that compares them.

    Args:
        profile: the profile to select first; none takes params.yaml as it is.
        retries: how often a failed cell is run again, which resumes it.
        jobs: how many cells run side by side, each with its share of the GPUs.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        end_with_parent()  # the worker
    with exclusive("another flow run", ROOT / results.FLOW, accelerated=False, log=get_run_logger()):
        try:
            free = shares(jobs)
            if profile is not None:
                select_profile(profile)
            name = results.result_name()
            cells = read_stages(MATRIX)
        except UserError as error:
            return Failed(name=REFUSED, message=str(error))
        if code := _command("benchmarks.arms"):
            why = "what would be trained cannot be told; see the log"
            return Failed(name=REFUSED if code == USER_MISTAKE else "Failed", message=why)
        outcomes = run_cells(cells, retries, free)
        missing = [one.stage for one in outcomes if one.state not in DONE]
        show_stages(f"{name}-compare", outcomes)
        if missing and (code := _command("benchmarks.compare")):  # DVC's own stage wants all cells
            return Failed(message=f"{some(missing)} have no result, and the page ended with {code}")
        page = MATRIX / "page.md"
        create_markdown_artifact(page.read_text(), key="compare", description=f"Methods, profile {name}")
        counts = Counter(one.state for one in outcomes)
        if missing:
            return Failed(message=f"{len(missing)} of {len(outcomes)} stages have no result: {some(missing)}")
        return Completed(message=f"{name}: {counts['Completed']} stages ran, {counts['Cached']} cached")


def run_cells(cells: list[Stage], retries: int, free: list[dict[str, str]]) -> list[Outcome]:
    """Runs what is stale, in order; after a failure all that does not need it.

    Args:
        free: of `shares`, of which each cell that runs has one.
    """
    first = [cell for cell in cells if cell.name in FIRST]
    rest = [cell for cell in cells if cell.name not in FIRST]
    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(len(free)) as pool, stopping_together():
        _run(first, {}, outcomes, pool, retries, free)
        verdicts = {step.stage: step.verdict for step in plan(rest, root=MATRIX)}
        _run(rest, verdicts, outcomes, pool, retries, free)
    return [outcomes[cell.name] for cell in cells]


def _run(
    cells: list[Stage],
    verdicts: dict[str, str],
    outcomes: dict[str, Outcome],
    pool: Executor,
    retries: int,
    free: list[dict[str, str]],
) -> None:
    """Adds the cells' outcomes to those of the cells before."""
    waiting = list(cells)
    running: dict[Future[tuple[Outcome, State]], tuple[str, dict[str, str]]] = {}
    while waiting or running:
        for stage in list(waiting):
            if any(name not in outcomes for name in stage.needs):
                continue
            lost = [name for name in stage.needs if outcomes[name].state not in DONE]
            if lost:
                outcomes[stage.name] = Outcome(stage.name, "not reached", f"needs {some(sorted(lost))}")
            elif verdicts.get(stage.name) == "cached":
                outcomes[stage.name] = Outcome(stage.name, "Cached", "up to date")
            elif free and _method(stage.name) not in {_method(name) for name, _ in running.values()}:
                share = free.pop()
                in_flow = copy_context().run
                started = pool.submit(in_flow, reproduce_stage, stage, False, retries, MATRIX, share)
                running[started] = stage.name, share
            else:
                continue
            waiting.remove(stage)
        for ended in wait(running, return_when=FIRST_COMPLETED).done:
            name, share = running.pop(ended)
            outcomes[name], _ = ended.result()
            free.append(share)


def shares(jobs: int) -> list[dict[str, str]]:
    """What each of the cells side by side has for itself: its accelerators, where there are some.

    Raises:
        UserError: there is no job, or there are fewer accelerators than jobs.
    """
    if jobs < 1:
        raise UserError(f"jobs: expected 1 or more, found {jobs}.")
    devices = accelerators()
    if devices and jobs > len(devices):
        raise UserError(
            f"jobs: {jobs}, and {len(devices)} GPUs are visible; a cell needs one for itself, so ask for "
            f"{len(devices)} at most."
        )
    if jobs == 1 or not devices:
        return [{} for _ in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(devices[at::jobs])} for at in range(jobs)]


def _method(cell: str) -> str:
    """A cell's name without its seed. Two seeds of one method have one folder of running state."""
    return re.sub(r"@\d+", "@", cell)


def _command(module: str) -> int:
    """Runs one of the project's commands; returns its exit code."""
    logger = get_run_logger()
    command = [sys.executable, "-m", module]
    return run(command, lambda line: logger.info("%s", line), child_environment(), ROOT).code


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("flows.compare", __doc__)
    parser.add_argument("--profile", help="select this profile first")
    parser.add_argument("--retries", type=int, default=0, help="of a failed cell (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="cells side by side (default: 1)")
    given = parser.parse_args(arguments)
    if code := exit_code("compare", lambda: connect(ROOT)):
        return code
    state = compare(given.profile, given.retries, given.jobs, return_state=True)
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    return 0 if state.is_completed() else 2 if state.name == REFUSED else 1


if __name__ == "__main__":
    sys.exit(main())
