"""Kills a run in each of the ways it can die while it trains: orphans, resuming, the same result.

    .venv/bin/python -m benchmarks.deaths                  # all, some minutes each
    .venv/bin/python -m benchmarks.deaths "cancelled" "SIGKILL of dvc"

In a clone of the checkout, with its own server, worker and deployments on loopback, and a Stage I of half a
minute. After the killed run another of the same deployment follows, whose model and metrics are compared,
file by file, with those of an undisturbed `dvc repro`. Prints a markdown table.
"""

import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.tables import markdown
from tasks.commands.profiles import PARAMS, compose
from tasks.runner.exits import parser_of
from tests.flows.server import Server
from tests.test_pipeline import Checkout

STAGE = "train_stage1"
TRAINER = ("-m tasks.train", "--name stage1")  # in its command line
OUTPUTS = ("models/stage1", f"metrics/{STAGE}")
OVERRIDES = [
    "data.digits=2",
    "data.sizes={train: 2000, validation: 64, test: 64}",
    "model.steps=100",
    "training.steps=300",
    "training.prompts_per_step=8",
    "training.validate_every=100",
    "training.validation_problems=64",
]
WAIT = 300.0  # seconds until something that has to happen counts as not happening
SECONDS_TO_DIE = 5
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Clone:
    """A clone of the checkout in which all that Stage I needs has run, and Stage I can be undone."""

    def __init__(self, folder: Path) -> None:
        self.checkout = Checkout(folder)
        self.root = self.checkout.root
        (self.root / PARAMS).write_text(compose(OVERRIDES, self.root / "conf"))
        runtime = self.root / "runtime.yaml"
        runtime.write_text(runtime.read_text().replace("threads: 2", "threads: 1"))
        self.checkout.run("dvc", "repro", "prepare_base_model", "download_data")
        self.lock = (self.root / "dvc.lock").read_text()
        started = time.monotonic()
        self.checkout.run("dvc", "repro", STAGE)
        self.seconds = time.monotonic() - started
        self.expected = self.results()
        self.server: Server | None = None

    def undo(self) -> None:
        """Removes the stage's results, also from DVC's run cache, and its checkpoints."""
        for path in (".dvc/cache/runs", "models/stage1", f".runs/{STAGE}"):
            shutil.rmtree(self.root / path, ignore_errors=True)
        for path in (self.root / "metrics").glob(f"{STAGE}*"):
            path.unlink()
        (self.root / "dvc.lock").write_text(self.lock)

    def results(self) -> dict[str, str]:
        """Hashes of the stage's files, by path."""
        return {name: sha for name, sha in self.checkout.hashes().items() if name.startswith(OUTPUTS)}

    def running_server(self) -> Server:
        """The server, started if it is not up."""
        if self.server is None or self.server.process.poll() is not None:
            self.server = Server(self.checkout)
        return self.server

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes in the clone whose command line contains all the words; not their watchdogs."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                here = Path(process.cwd()).is_relative_to(self.root)
                if here and all(word in line for word in words) and "processes.py" not in line:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def trainers(self) -> list[psutil.Process]:
        """Trainers, and the processes that wait for them: DVC and shells."""
        return [
            process
            for process in {*self.processes(STAGE), *self.processes(*TRAINER)}
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]


def cancel(clone: Clone, run: dict) -> None:
    """Does what the page's Cancel button does."""
    wanted = {"type": "CANCELLING", "name": "Cancelling"}
    clone.running_server().tell(f"flow_runs/{run['id']}/set_state", state=wanted)


def kill(number: signal.Signals, *words: str) -> Callable[[Clone, dict], None]:
    """Sends a signal to the processes whose command line contains the words."""

    def send(clone: Clone, run: dict) -> None:
        found = clone.processes(*words)
        assert found, f"no process {words}"
        for process in found:
            process.send_signal(number)

    return send


DEATHS: dict[str, Callable[[Clone, dict], None]] = {
    "cancelled in the page": cancel,
    "SIGTERM of the flow": kill(signal.SIGTERM, "prefect.engine"),
    "SIGKILL of the flow": kill(signal.SIGKILL, "prefect.engine"),
    "SIGKILL of dvc": kill(signal.SIGKILL, "dvc", "repro"),
    "SIGKILL of the trainer": kill(signal.SIGKILL, *TRAINER),
    "SIGKILL of the worker": kill(signal.SIGKILL, "prefect worker start"),
    "SIGKILL of the server": kill(signal.SIGKILL, "prefect server start"),
}
ENDS_SERVER = ("worker", "server")  # `make serve` ends with either of them, and is started again


def start(clone: Clone) -> dict:
    """Starts a run of the stage by the manual deployment; returns the run."""
    server = clone.running_server()
    deployment = next(item for item in server.ask("deployments") if item["name"] == "manual")
    return server.tell(
        f"deployments/{deployment['id']}/create_flow_run",
        parameters={"stages": [STAGE], "retries": 0},
        state={"type": "SCHEDULED"},
    )


def state(clone: Clone, run: dict) -> dict:
    """A run's state on the server."""
    return clone.running_server().ask("flow_runs", flow_runs={"id": {"any_": [run["id"]]}})[0]["state"]


def until(condition: Callable[[], object]) -> bool:
    """Waits; whether the condition came true in time."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.5)
    return False


def saved(clone: Clone) -> bool:
    """Whether the stage has a checkpoint to resume from."""
    return any((clone.root / ".runs" / STAGE).glob("*/checkpoint-*"))


def die(clone: Clone, name: str, act: Callable[[Clone, dict], None]) -> list[str]:
    """One row of the table."""
    clone.undo()
    run = start(clone)
    assert until(lambda: saved(clone)), f"{name}: no training\n{clone.running_server().logs(run)}"
    time.sleep(random.uniform(0, 3))
    act(clone, run)
    died = time.monotonic()
    time.sleep(SECONDS_TO_DIE)
    orphans = len(clone.trainers())
    assert until(lambda: not clone.trainers()), f"{name}: {clone.trainers()} still train"
    gone = time.monotonic() - died
    assert not clone.results().keys() >= clone.expected.keys(), "it ended before it was killed"

    if name.endswith(ENDS_SERVER):
        assert clone.server
        clone.server.process.wait(WAIT)
    assert until(lambda: not clone.processes("prefect.engine")), f"{name}: the run's process has not ended"
    again = start(clone)
    ended = until(lambda: state(clone, again)["type"] in FINAL)
    last = state(clone, again)["name"]
    step = re.search(r"resumed from step (\d+)", clone.running_server().logs(again))
    same = clone.results() == clone.expected
    return [
        name,
        state(clone, run)["name"],
        str(orphans) + (f", none after {gone:.0f} s" if orphans else ""),
        f"yes, from step {step[1]}" if ended and last == "Completed" and step else f"no: {last}",
        "yes" if same else "no",
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
        print(f"{STAGE} undisturbed: {clone.seconds:.0f} s", flush=True)
        try:
            for name, act in DEATHS.items():
                if any(part in name for part in wanted):
                    rows.append(die(clone, name, act))
                    print(rows[-1], flush=True)
        finally:
            if clone.server and clone.server.process.poll() is None:
                clone.server.stop()
    print("\n" + markdown(header, rows))


if __name__ == "__main__":
    main()
