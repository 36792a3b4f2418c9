"""Kills a run in each of the ways it can die while it trains: orphans, resuming, the same result.

    .venv/bin/python -m benchmarks.deaths                  # all, some minutes each
    .venv/bin/python -m benchmarks.deaths "cancelled" "SIGKILL of dvc"

In a clone of the checkout, with its own server, worker and deployments on loopback, and a Stage I of half a
minute. After the killed run another of the same deployment follows, whose model and metrics are compared,
file by file, with those of an undisturbed `dvc repro`. Prints a markdown table.
"""

import random
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of
from tests.flows.server import Server
from tests.victims import PATIENCE, Victim, until

STAGE = "train_stage1"
TRAINER = ("-m tasks.train", "--name stage1")  # in its command line
SECONDS_TO_DIE = 5
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Clone(Victim):
    """A clone in which Stage I has run undisturbed, and its server, once something asks for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "training.steps=150", "training.validate_every=50")
        self.run("dvc", "repro", STAGE)
        self.expected = self.results(STAGE)
        self.started: Server | None = None

    @property
    def server(self) -> Server:
        """The server, started if it is not up."""
        if self.started is None or self.started.process.poll() is not None:
            self.started = Server(self)
        return self.started

    def trainers(self) -> list[object]:
        """Trainers, and the processes that wait for them: DVC and shells."""
        return [*self.processes(STAGE), *self.processes(*TRAINER)]


# A signal to the processes whose command lines have these words; none is what the page's Cancel button does.
DEATHS: dict[str, tuple[Any, ...]] = {
    "cancelled in the page": (),
    "SIGTERM of the flow": (signal.SIGTERM, "prefect.engine"),
    "SIGKILL of the flow": (signal.SIGKILL, "prefect.engine"),
    "SIGKILL of dvc": (signal.SIGKILL, "dvc", "repro"),
    "SIGKILL of the trainer": (signal.SIGKILL, *TRAINER),
    "SIGKILL of the worker": (signal.SIGKILL, "prefect worker start"),
    "SIGKILL of the server": (signal.SIGKILL, "flows.server"),
}
ENDS_SERVER = ("worker", "server")  # `make serve` ends with either of them, and is started again


def start(clone: Clone) -> dict:
    """Starts a run of the stage by the manual deployment; returns the run."""
    server = clone.server
    deployment = next(item for item in server.ask("deployments") if item["name"] == "manual")
    return server.tell(
        f"deployments/{deployment['id']}/create_flow_run",
        parameters={"stages": [STAGE], "retries": 0},
        state={"type": "SCHEDULED"},
    )


def state(clone: Clone, run: dict) -> dict:
    """A run's state on the server."""
    return clone.server.ask("flow_runs", flow_runs={"id": {"any_": [run["id"]]}})[0]["state"]


def attack(clone: Clone, run: dict, *how: Any) -> None:
    """Does to a run what DEATHS says."""
    if not how:
        wanted = {"type": "CANCELLING", "name": "Cancelling"}
        clone.server.tell(f"flow_runs/{run['id']}/set_state", state=wanted)
        return
    number, *words = how
    found = clone.processes(*words)
    assert found, f"no process {words}"
    for process in found:
        process.send_signal(number)


def die(clone: Clone, name: str) -> list[str]:
    """One row of the table."""
    clone.undo(STAGE)
    run, checkpoints = start(clone), clone.root / ".runs" / STAGE
    saved = until(lambda: any(checkpoints.glob("*/checkpoint-*")))
    assert saved, f"{name}: no training\n{clone.server.logs(run)}"
    time.sleep(random.uniform(0, 3))
    attack(clone, run, *DEATHS[name])
    died = time.monotonic()
    time.sleep(SECONDS_TO_DIE)
    orphans = len(set(clone.trainers()))
    assert until(lambda: not clone.trainers()), f"{name}: {clone.trainers()} still train"
    gone = time.monotonic() - died
    assert not clone.results(STAGE).keys() >= clone.expected.keys(), "it ended before it was killed"

    if name.endswith(ENDS_SERVER):
        assert clone.started
        clone.started.process.wait(PATIENCE)
    assert until(lambda: not clone.processes("prefect.engine")), f"{name}: the run's process has not ended"
    again = start(clone)
    until(lambda: state(clone, again)["type"] in FINAL)
    last = state(clone, again)["name"]
    step = re.search(r"resumed from step (\d+)", clone.server.logs(again))
    return [
        name,
        state(clone, run)["name"],
        str(orphans) + (f", none after {gone:.0f} s" if orphans else ""),
        f"yes, from step {step[1]}" if last == "Completed" and step else f"no: {last}",
        "yes" if clone.results(STAGE) == clone.expected else "no",
    ]


def main() -> None:
    """Kills and prints the table."""
    parser = parser_of("benchmarks.deaths", __doc__)
    parser.add_argument("deaths", nargs="*", help=f"parts of their names (default: all): {', '.join(DEATHS)}")
    wanted = parser.parse_args().deaths or [""]
    header = ["killed", "its run", f"orphans after {SECONDS_TO_DIE} s", "the next run resumed", "same result"]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder))
        try:
            for name in DEATHS:
                if any(part in name for part in wanted):
                    rows.append(die(clone, name))
                    print(rows[-1], flush=True)
        finally:
            if clone.started and clone.started.process.poll() is None:
                clone.started.stop()
    print("\n" + markdown(header, rows))


if __name__ == "__main__":
    main()
