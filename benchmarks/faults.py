"""What a machine can do to a stage: what was tried, what the stage said, what was lost.

    .venv/bin/python -m benchmarks.faults                    # all, some minutes
    .venv/bin/python -m benchmarks.faults "disk" "terminal"  # those with these words

In a clone of the checkout, at a size that trains for seconds: the pipeline runs once in peace. Then, for each
fault, a stage's outputs are removed, as DVC does, its command runs with the fault, and again without. Nothing
is lost if the first run leaves all other outputs as they were, and no half of its own, and the second makes
the very files that the peaceful run made.

Small and read-only disks are mounted, which takes root; without it those rows say that they were skipped.
Writes benchmarks/faults.csv and prints the table as markdown. Ends with 1 if something was lost, or if there
was a traceback.
"""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.machine import PAGE, Patient, Run, Skipped, read_only, small_disk
from benchmarks.tables import markdown
from tasks.runner.exits import parser_of
from tasks.runner.pipeline import outputs_of, read_pipeline
from tests.victims import until, wait

SECONDS_TO_DIE = 60
# For every Python below this folder on PYTHONPATH.
JUMPING_CLOCK = """
import random, time
real, leap = time.time, random.Random(0)
time.time = lambda: real() + leap.uniform(-1, 1) * 10 * 365 * 86_400
"""


def command_of(stage: str) -> list[str]:
    """A stage's command, as the shell splits it."""
    return [sys.executable, *read_pipeline()[stage]["cmd"].split()[1:]]


@contextmanager
def full_disk(clone: Patient, stage: str) -> Iterator[Run]:
    """Room for half of what the stage writes first."""
    output = clone.root / outputs_of(stage)[0]
    with small_disk(output.parent, clone.sizes[stage] // 2) as enlarge:
        yield Run(command_of(stage), lift=enlarge)


@contextmanager
def full_runs(clone: Patient, stage: str) -> Iterator[Run]:
    """No room for checkpoints."""
    with small_disk(clone.root / ".runs", 100_000) as enlarge:
        yield Run(command_of(stage), lift=enlarge)


@contextmanager
def full_while_training(clone: Patient, stage: str) -> Iterator[Run]:
    """Another program fills the disk of the checkpoints once there is one."""
    runs = clone.root / ".runs"

    def fill(process: subprocess.Popen[bytes]) -> None:
        wait(lambda: any(runs.glob("*/*/checkpoint-*")), process)
        with suppress(OSError), (runs / "another").open("wb") as file:
            while True:
                file.write(b"\0" * PAGE)
                file.flush()

    with small_disk(runs, 30_000_000) as enlarge:
        yield Run(command_of(stage), during=fill, lift=enlarge)
        (runs / "another").unlink(missing_ok=True)


@contextmanager
def full_cache(clone: Patient, stage: str) -> Iterator[Run]:
    """Room for the stage's outputs and none for DVC's copies of them."""
    with small_disk(clone.root / ".dvc/cache", PAGE) as enlarge:
        yield Run(["dvc", "repro", "--single-item", stage], lift=enlarge)


@contextmanager
def killed_before_recorded(clone: Patient, stage: str) -> Iterator[Run]:
    """DVC dies once the outputs are there, and before they are in its cache."""
    summary = clone.root / outputs_of(stage, "metrics")[0]

    def kill(process: subprocess.Popen[bytes]) -> None:
        wait(summary.exists, process)
        process.kill()

    yield Run(["dvc", "repro", "--single-item", stage], during=kill)


@contextmanager
def no_descriptors(clone: Patient, stage: str) -> Iterator[Run]:
    """Few files may be open at a time."""
    yield Run(command_of(stage), before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5)))


@contextmanager
def no_memory(clone: Patient, stage: str) -> Iterator[Run]:
    """Half a gigabyte for data, of which libraries take most."""
    limit = 500_000_000
    yield Run(command_of(stage), before=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))


@contextmanager
def read_only_outputs(clone: Patient, stage: str) -> Iterator[Run]:
    """The folder of the outputs is read-only."""
    with read_only((clone.root / outputs_of(stage)[0]).parent):
        yield Run(command_of(stage))


@contextmanager
def read_only_runs(clone: Patient, stage: str) -> Iterator[Run]:
    """The folder of checkpoints and locks is."""
    with read_only(clone.root / ".runs"):
        yield Run(command_of(stage))


@contextmanager
def jumping_clock(clone: Patient, stage: str) -> Iterator[Run]:
    """The clock says another time whenever it is asked, up to ten years off."""
    folder = clone.root.parent / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(JUMPING_CLOCK)
    yield Run(command_of(stage), {"PYTHONPATH": str(folder)})


@contextmanager
def suspended(clone: Patient, stage: str) -> Iterator[Run]:
    """SIGSTOP for three seconds, five times, and SIGCONT."""

    def suspend(process: subprocess.Popen[bytes]) -> None:
        started(clone, stage, process)
        for _ in range(5):
            for number, seconds in ((signal.SIGSTOP, 3.0), (signal.SIGCONT, 0.2)):
                os.killpg(process.pid, number)
                time.sleep(seconds)

    yield Run(command_of(stage), during=suspend)


@contextmanager
def closed_terminal(clone: Patient, stage: str) -> Iterator[Run]:
    """The terminal goes, and SIGHUP comes, while the stage runs."""

    def close(process: subprocess.Popen[bytes]) -> None:
        started(clone, stage, process)
        os.killpg(process.pid, signal.SIGHUP)

    yield Run(command_of(stage), during=close, terminal=True)


def started(clone: Patient, stage: str, process: subprocess.Popen[bytes]) -> None:
    """Until a stage of training has saved."""
    wait(lambda: any((clone.root / ".runs" / stage).glob("*/checkpoint-*")), process)


# The last stage of each command that writes: those of one command differ in paths only.
STAGES = list({command_of(stage)[2]: stage for stage in read_pipeline() if outputs_of(stage)}.values())
DOWNLOAD, PREPARE, EVALUATE, TRAIN, REPORT = STAGES
FAULTS: dict[str, tuple[Callable[[Patient, str], Any], list[str]]] = {
    "disk full: outputs": (full_disk, STAGES),
    "disk full: checkpoints": (full_runs, [TRAIN]),
    "disk full while it trains": (full_while_training, [TRAIN]),
    "disk full: DVC's cache": (full_cache, [TRAIN]),
    "DVC killed before it recorded": (killed_before_recorded, [TRAIN]),
    "5 file descriptors": (no_descriptors, [DOWNLOAD, TRAIN]),
    "no memory": (no_memory, [PREPARE, TRAIN]),
    "read-only outputs": (read_only_outputs, [TRAIN, REPORT]),
    "read-only .runs": (read_only_runs, [TRAIN]),
    "clock that jumps": (jumping_clock, [TRAIN]),
    "SIGSTOP and SIGCONT": (suspended, [TRAIN]),
    "closed terminal": (closed_terminal, [TRAIN]),
}


def lost(clone: Patient, stage: str, others: dict[str, str]) -> list[str]:
    """What a fault has done to the outputs: those of other stages, and halves of its own."""
    now, whole = clone.hashes(), clone.expected
    changed = [name for name, value in others.items() if now.get(name) != value]
    return changed + [name for name, value in now.items() if whole.get(name) not in (None, value)]


def trial(clone: Patient, name: str, stage: str) -> dict[str, Any]:
    """A row."""
    row = {"fault": name, "stage": stage}
    clone.forget(stage)
    others = clone.others(stage)
    try:
        with FAULTS[name][0](clone, stage) as run:
            code, said = run.start(clone)
            deadline = time.monotonic() + SECONDS_TO_DIE
            until(lambda: not clone.processes("tasks.") or time.monotonic() > deadline)
            orphans, gone = clone.processes("tasks."), lost(clone, stage, others)
            if run.lift:
                run.lift()
                then = again(clone, run.command) if code != 0 else ""
    except Skipped as skipped:
        return {**row, "exit": "", "said": str(skipped), "traceback": "", "then": "", "lost": ""}
    if not run.lift:
        then = again(clone, run.command) if code != 0 else ""
    gone += [path for path, value in clone.expected.items() if clone.hashes().get(path) != value]
    return {
        **row,
        "exit": code,
        "said": last_line(said, clone) if code != 0 else "nothing: it went on",
        "traceback": "YES" if "Traceback" in said else "no",
        "then": then,
        "lost": ", ".join(gone) or (f"{len(orphans)} orphans" if orphans else "nothing"),
    }


def again(clone: Patient, command: list[str]) -> str:
    """Runs a stage once more, without any fault, and says how that went."""
    code, said = Run(command).start(clone)
    if code != 0:
        return f"failed: {last_line(said, clone)}"
    resumed = re.search(r"resumed from step \d+", said)
    return resumed[0] if resumed else "ran"


def last_line(said: str, clone: Patient) -> str:
    """What a stage said at its end, without the folder it was in."""
    lines = [line for line in re.split(r"[\r\n]+", said) if line.strip()]
    errors = re.findall(r"\b[Ee](?:rror|RROR): .*", said)
    line = (errors or lines or [""])[-1]
    return line.replace(f"{clone.root}/", "").replace("|", "/")


def main() -> None:
    """Tries everything."""
    parser = parser_of("benchmarks.faults", __doc__)
    parser.add_argument("faults", nargs="*", help=f"parts of their names (default: all): {', '.join(FAULTS)}")
    wanted, file = parser.parse_args().faults, Path("benchmarks/faults.csv")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clone = Patient(Path(folder))
        for name, (_, stages) in FAULTS.items():
            for stage in stages if not wanted or any(part in name for part in wanted) else ():
                rows.append(trial(clone, name, stage))
                print(rows[-1], flush=True)
                if not wanted:
                    pd.DataFrame(rows).to_csv(file, index=False)
    table = pd.DataFrame(rows)
    print(markdown(table.columns, table.to_numpy()))
    wrong = table[~table.lost.isin(["nothing", ""]) | (table.traceback == "YES")]
    print(f"{len(table)} trials, {len(wrong)} not as they have to be")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
