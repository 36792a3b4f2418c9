"""The pipeline as a Prefect flow: one task run per stage, in DVC's order and with DVC's reasons.

    python -m flows.reproduce                       params.yaml as it is
    python -m flows.reproduce --profile gsm8k       select a profile first, like `make repro profile=gsm8k`
    python -m flows.reproduce --stages train_stage2 --force
    python -m flows.reproduce --plan                show what would run and why; run nothing

Needs no server: without PREFECT_API_URL, and without `make serve` in this checkout, Prefect starts one for
the run. Exit codes: 0, 1 for a failed run, 2 for a mistake that the user can fix.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State

from flows import results
from flows.artifacts import show_metrics, show_report, show_stages, show_warnings
from flows.child import run
from flows.connection import connect
from flows.dag import ROOT, Step, plan, read_stages, select
from flows.notify import hooks
from flows.stages import REFUSED, Outcome, child_environment, reproduce_stage
from score_core.errors import UserError
from score_core.files import replacing
from tasks.commands.profiles import PARAMS, check_known, check_nothing_lost, compose, note_composed
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.lock import exclusive
from tasks.runner.processes import end_with_parent


@flow(
    name="reproduce",
    persist_result=False,
    on_completion=hooks(),
    on_failure=hooks(),
    on_crashed=hooks(),
    on_cancellation=hooks(),
)
def reproduce(
    profile: str | None = None,
    stages: list[str] | None = None,
    force: bool = False,
    retries: int = 1,
    max_drop: float = 0.02,
) -> State:
    """Brings the pipeline up to date, from data to report.

    Args:
        profile: the profile to select first; none takes params.yaml as it is.
        stages: only these and what they need; none means all.
        force: run these stages, or all if none is named, although nothing changed.
        retries: how often a failed stage is run again, which resumes it.
        max_drop: how far second-attempt accuracy or delta may fall below the accepted run's, as a share
            (0.02 is 2 points), before the run counts as failed.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        end_with_parent()  # the worker
    logger = get_run_logger()
    with exclusive("another flow run", ROOT / results.FLOW, accelerated=False, log=logger):
        try:
            results.check_max_drop(max_drop)
            if profile is not None:
                select_profile(profile)
            name = results.result_name()
            accepted = results.read_accepted(name)  # now, rather than after hours of training
            known = read_stages()
            checks = [stage.name for stage in known if not stage.outputs]
            wanted = select(known, stages and [*checks, *stages])
        except UserError as error:
            return Failed(name=REFUSED, message=str(error))
        forced = _forced(force, stages, [stage.name for stage in wanted])
        logger.info("Profile %s. The plan:\n%s", name, as_text(plan(wanted, forced)))

        outcomes: list[Outcome] = []
        for stage in wanted:
            outcome, state = reproduce_stage(stage, stage.name in forced, retries)
            outcomes.append(outcome)
            if not state.is_completed():
                rest = [Outcome(after.name, "not reached") for after in wanted[len(outcomes) :]]
                show_stages(name, outcomes + rest)
                return Failed(name=state.name, message=state.message)
        show_stages(name, outcomes)
        warnings = results.read_warnings(wanted)
        show_warnings(name, warnings)
        counts = Counter(outcome.state for outcome in outcomes)
        summary = f"{name}: {counts['Completed']} stages ran, {counts['Cached']} cached"
        if warnings:
            summary += f"; signs of collapse in {' and '.join(warnings)}"
        if profile is not None and counts["Completed"]:
            _save_experiment()
        show_report(name, wanted)
        final = results.read_metrics(results.FINAL, wanted)
        if final is None:
            return Completed(message=summary)
        show_metrics(name, final, results.read_metrics(results.BASE, wanted), accepted)
        results.save_last(name, final)
        return quality_gate(name, summary, final, accepted, max_drop)


def quality_gate(
    name: str, summary: str, final: results.Metrics, accepted: results.Metrics | None, max_drop: float
) -> State:
    """Failed if the metrics are too far below the accepted ones."""
    found = results.regressions(final, accepted, max_drop) if accepted else []
    if found:
        return Failed(
            message=f"Worse than the accepted run: {'; '.join(found)}. To accept these results: "
            f"`make accept`, and commit {results.ACCEPTED}/{name}.json."
        )
    compared = "not worse than the accepted run" if accepted else "no accepted run to compare with"
    numbers = f"attempt 2 {results.percent(final['accuracy_t2'])}, delta {100 * final['delta']:+.2f} points"
    return Completed(message=f"{summary}; {numbers}; {compared}")


def select_profile(name: str, root: Path = ROOT) -> None:
    """Writes params.yaml as `dvc exp run -S profile=NAME` composes it.

    Raises:
        UserError: there is no such profile, or edits made by hand would be lost.
    """
    check_known(name, root / "conf")
    text = compose([f"profile={name}"], root / "conf")
    target = root / PARAMS
    if target.exists() and target.read_text() == text:
        return
    check_nothing_lost(root)
    note_composed(text, root)
    with replacing(target) as temporary:
        temporary.write_text(text)


def as_text(steps: list[Step]) -> str:
    """The plan as lines of three columns."""
    widths = [
        max(len(text) for text in column)
        for column in zip(*((s.stage, s.verdict) for s in steps), strict=True)
    ]
    return "\n".join(f"{s.stage:{widths[0]}}  {s.verdict:{widths[1]}}  {s.why}" for s in steps)


def _forced(force: bool, named: list[str] | None, wanted: list[str]) -> frozenset[str]:
    return frozenset(named or wanted) if force else frozenset()


def _save_experiment() -> None:
    """Keeps a profile's results as a DVC experiment, as `dvc exp run` does."""
    logger = get_run_logger()
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "save", "--force"]
    ended = run(command, lambda line: logger.info("%s", line), child_environment(), ROOT)
    if ended.code != 0:
        logger.warning("The results could not be saved as a DVC experiment; they are in the workspace only")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("flows.reproduce", __doc__)
    parser.add_argument("--profile", help="select this profile first")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="only these and what they need")
    parser.add_argument("--force", action="store_true", help="run them although nothing changed")
    parser.add_argument("--retries", type=int, default=0, help="of a failed stage (default: 0)")
    parser.add_argument(
        "--max-drop", type=float, default=0.02, help="allowed drop, as a share (default: 0.02)"
    )
    parser.add_argument("--plan", action="store_true", help="only show what would run and why")
    given = parser.parse_args(arguments)
    if given.plan and given.profile:
        parser.error("--plan is for params.yaml as it is; leave out --profile")
    if given.plan:
        return exit_code("reproduce", lambda: _print_plan(given))
    if code := exit_code("reproduce", lambda: connect(ROOT)):
        return code
    state = reproduce(
        given.profile, given.stages, given.force, given.retries, given.max_drop, return_state=True
    )
    if state.is_completed():
        print(state.message)
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 2 if state.name == REFUSED else 1


def _print_plan(given: argparse.Namespace) -> None:
    wanted = select(read_stages(), given.stages)
    print(as_text(plan(wanted, _forced(given.force, given.stages, [stage.name for stage in wanted]))))


if __name__ == "__main__":
    sys.exit(main())
