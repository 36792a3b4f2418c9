"""Each way in which a run can die while it trains, tried: orphans, resuming, the same result.

    .venv/bin/python -m benchmarks.deaths                  # all of them, some minutes each
    .venv/bin/python -m benchmarks.deaths "cancelled" "SIGKILL of dvc"

In a clone of the checkout, with a server, a worker and deployments of its own on loopback, and a Stage I of
half a minute. The killed run is followed by another of the same deployment; its model and metrics are
compared, file by file, with those of `dvc repro` undisturbed. Prints the table as markdown.
"""

import argparse
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
from tests.flows.server import Server
from tests.test_pipeline import Checkout

STAGE = "train_stage1"
OUTPUTS = ("models/stage1", f"metrics/{STAGE}")
OVERRIDES = [
    "data.digits=2",
    "data.sizes={train: 2000, validation: 64, test: 64}",
    "model.steps=100",
    "stage1.steps=300",
    "stage1.prompts_per_step=8",
    "stage1.validate_every=100",
    "stage1.validation_problems=64",
]
WAIT = 300.0  # seconds until something that has to happen counts as not happening
SECONDS_TO_DIE = 5
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Place:
    """The clone, with all that Stage I needs done, and the means to go back to that."""

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

    def forget(self) -> None:
        """Undoes the stage, also in DVC's run cache and among its checkpoints."""
        for path in (".dvc/cache/runs", "models/stage1", f".runs/{STAGE}"):
            shutil.rmtree(self.root / path, ignore_errors=True)
        for path in (self.root / "metrics").glob(f"{STAGE}*"):
            path.unlink()
        (self.root / "dvc.lock").write_text(self.lock)

    def results(self) -> dict[str, str]:
        """The stage's files by content."""
        return {name: sha for name, sha in self.checkout.hashes().items() if name.startswith(OUTPUTS)}

    def serving(self) -> Server:
        """The server, started if it is not up."""
        if self.server is None or self.server.process.poll() is not None:
            self.server = Server(self.checkout)
        return self.server

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those at work in the clone whose command line holds all the words."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                here = Path(process.cwd()).is_relative_to(self.root)
                if here and all(word in line for word in words) and "leash.py" not in line:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def trainers(self) -> list[psutil.Process]:
        """Whatever trains or would have it done."""
        return [
            process
            for process in self.processes(STAGE)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]


def cancel(place: Place, run: dict) -> None:
    """What the page's Cancel button asks of the server."""
    wanted = {"type": "CANCELLING", "name": "Cancelling"}
    place.serving().tell(f"flow_runs/{run['id']}/set_state", state=wanted)


def kill(number: signal.Signals, *words: str) -> Callable[[Place, dict], None]:
    """Sends a signal to the process whose command line holds the words."""

    def send(place: Place, run: dict) -> None:
        found = place.processes(*words)
        assert found, f"no process {words}"
        for process in found:
            process.send_signal(number)

    return send


DEATHS: dict[str, Callable[[Place, dict], None]] = {
    "cancelled in the page": cancel,
    "SIGTERM of the flow": kill(signal.SIGTERM, "prefect.engine"),
    "SIGKILL of the flow": kill(signal.SIGKILL, "prefect.engine"),
    "SIGKILL of dvc": kill(signal.SIGKILL, "dvc", "repro"),
    "SIGKILL of the trainer": kill(signal.SIGKILL, f"tasks.{STAGE}"),
    "SIGKILL of the worker": kill(signal.SIGKILL, "prefect worker start"),
    "SIGKILL of the server": kill(signal.SIGKILL, "prefect server start"),
}
ENDS_SERVING = ("worker", "server")  # `make serve` ends with either of them, and is started again


def start(place: Place) -> dict:
    """Has the manual deployment run the stage; returns the run."""
    server = place.serving()
    deployment = next(item for item in server.ask("deployments") if item["name"] == "manual")
    return server.tell(
        f"deployments/{deployment['id']}/create_flow_run",
        parameters={"stages": [STAGE], "retries": 0},
        state={"type": "SCHEDULED"},
    )


def state(place: Place, run: dict) -> dict:
    """A run's state as the server has it."""
    return place.serving().ask("flow_runs", flow_runs={"id": {"any_": [run["id"]]}})[0]["state"]


def until(condition: Callable[[], object]) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.5)
    return False


def saved(place: Place) -> bool:
    """Whether the stage trains and has a checkpoint to go on from."""
    return any((place.root / ".runs" / STAGE).glob("*/checkpoint-*"))


def die(place: Place, name: str, act: Callable[[Place, dict], None]) -> list[str]:
    """One row of the table."""
    place.forget()
    run = start(place)
    assert until(lambda: saved(place)), f"{name}: no training\n{place.serving().logs(run)}"
    time.sleep(random.uniform(0, 3))
    act(place, run)
    died = time.monotonic()
    time.sleep(SECONDS_TO_DIE)
    orphans = len(place.trainers())
    assert until(lambda: not place.trainers()), f"{name}: {place.trainers()} go on training"
    gone = time.monotonic() - died
    assert not place.results().keys() >= place.expected.keys(), "it was over before it was killed"

    if name.endswith(ENDS_SERVING):
        assert place.server
        place.server.process.wait(WAIT)
    assert until(lambda: not place.processes("prefect.engine")), f"{name}: the run's process has not ended"
    again = start(place)
    ended = until(lambda: state(place, again)["type"] in FINAL)
    last = state(place, again)["name"]
    step = re.search(r"resumed from step (\d+)", place.serving().logs(again))
    same = place.results() == place.expected
    return [
        name,
        state(place, run)["name"],
        str(orphans) + (f", none after {gone:.0f} s" if orphans else ""),
        f"yes, from step {step[1]}" if ended and last == "Completed" and step else f"no: {last}",
        "yes" if same else "no",
    ]


def main() -> None:
    """Tries them and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("deaths", nargs="*", help=f"parts of their names (default: all): {', '.join(DEATHS)}")
    wanted = parser.parse_args().deaths or [""]
    header = ["killed", "its run", f"orphans after {SECONDS_TO_DIE} s", "the next run resumed", "same result"]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        print(f"{STAGE} undisturbed: {place.seconds:.0f} s", flush=True)
        try:
            for name, act in DEATHS.items():
                if any(part in name for part in wanted):
                    rows.append(die(place, name, act))
                    print(rows[-1], flush=True)
        finally:
            if place.server and place.server.process.poll() is None:
                place.server.stop()
    print("\n" + markdown(header, rows))


if __name__ == "__main__":
    main()
