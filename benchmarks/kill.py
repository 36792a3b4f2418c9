"""Training stages killed at random moments, run again by `dvc repro`, and compared bit by bit.

In a clone of the last commit, at a size that trains for seconds: each stage runs once in peace; then, for
each signal, ten times until a moment of its training drawn at random, in every second trial the first save
behind it, and again to its end. What DVC would restore without training is taken out of its lock and run
cache first.

    .venv/bin/python -m benchmarks.kill                   # 40 trials, half an hour on 2 busy cores
    .venv/bin/python -m benchmarks.kill --processes 2     # the same under ddp; one of the processes is killed

Writes benchmarks/kill.csv (kill_2.csv) and prints the table as markdown. Ends with 1 if a trial was not as it
has to be: equal to the last bit for one process, to rounding for more.
"""

import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import load

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of

STAGES = ("train_stage1", "train_stage2")
SIGNALS = (signal.SIGTERM, signal.SIGKILL)
PATIENCE = 300  # seconds
# Two toy stages of some seconds each, which validate and select as large ones do.
SETTINGS = {
    "data": {"digits": 3, "sizes": {"train": 2000, "validation": 100, "test": 50}},
    "model": {"steps": 100},
    "training": {
        "steps": 24,
        "prompts_per_step": 16,
        "warmup_steps": 2,
        "validate_every": 4,
        "validation_problems": 100,
        "select": "validation_accuracy",
    },
}


class Clone:
    """A clone of the checkout's last commit with small stages, run as so many processes."""

    def __init__(self, root: Path, processes: int) -> None:
        self.root, self.count = root, processes
        subprocess.run(["git", "clone", "-q", str(Path.cwd()), str(root)], check=True)
        params = yaml.safe_load((root / "params.yaml").read_text())
        for section, values in SETTINGS.items():
            params[section] |= values
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        runtime = yaml.safe_load((root / "runtime.yaml").read_text())
        runtime["threads"] = 1
        runtime["checkpoints"]["every_seconds"] = 0.5
        runtime["launch"] |= {"strategy": "ddp" if processes > 1 else "single", "processes": processes}
        (root / "runtime.yaml").write_text(yaml.safe_dump(runtime, sort_keys=False))

    def start(self, stage: str) -> subprocess.Popen[str]:
        """`dvc repro` of a stage, and of what comes before it."""
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.root.parent),
        }
        return subprocess.Popen(
            ["dvc", "repro", stage],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, stage: str) -> str:
        """What a `dvc repro` that has to end well says."""
        process = self.start(stage)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"dvc repro {stage} ended with {process.returncode}:\n{output}")
        return output

    def forget(self, stage: str) -> None:
        """Has DVC know nothing of the stage's results."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text())
        del lock["stages"][stage]
        (self.root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        shutil.rmtree(self.root / ".dvc/cache/runs", ignore_errors=True)
        for path in (*self.outputs(stage), self.log(stage)):
            path.unlink()

    def log(self, stage: str) -> Path:
        """What is there once training has begun."""
        return self.root / ".runs" / stage / "log.jsonl"

    def outputs(self, stage: str) -> list[Path]:
        """Every file of the stage's model and of its metrics."""
        model = self.root / "models" / stage.removeprefix("train_")
        files = [path for path in model.rglob("*") if path.is_file()]
        return sorted([*files, *(self.root / "metrics").glob(f"{stage}*")])

    def contents(self, stage: str) -> dict[str, bytes]:
        """The outputs by their path."""
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.outputs(stage)}

    def leftovers(self, stage: str) -> list[str]:
        """Temporary files anywhere, and checkpoints of the stage."""
        found = [path for path in self.root.rglob("*") if path.suffix in (".tmp", ".probe")]
        found += [path for path in (self.root / ".runs" / stage).iterdir() if path.is_dir()]
        return [str(path.relative_to(self.root)) for path in found if ".dvc/" not in str(path)]

    def processes(self, stage: str = "") -> list[int]:
        """Processes that run a stage in this clone, launchers and shells too; any stage, if none is named."""
        words = ["tasks.train ", f"--name {stage.removeprefix('train_')} "] if stage else ["tasks."]
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_text().replace("\0", " ")
                named = all(word in line for word in words)
                if named and (entry / "cwd").samefile(self.root):
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended
        return found

    def trainers(self, stage: str) -> list[int]:
        """Those of them that train: no shells and, of many processes, no launchers."""
        found = []
        for number in self.processes(stage):
            try:
                python = "python" in Path(f"/proc/{number}/comm").read_text()
                launched = "LOCAL_RANK=" in Path(f"/proc/{number}/environ").read_text()
            except OSError:
                continue
            if python and (launched or self.count == 1):
                found.append(number)
        return found

    def saving(self, stage: str) -> bool:
        """Whether a checkpoint is being written."""
        return any((self.root / ".runs" / stage).glob("*/unfinished/checkpoint-[1-9]*"))


def wait(until: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits until something holds or the process has ended."""
    deadline = time.monotonic() + PATIENCE
    while not until() and process.poll() is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing happened for {PATIENCE} seconds")
        time.sleep(0.001)


def trial(clone: Clone, stage: str, number: signal.Signals, delay: float, at_save: bool) -> dict[str, object]:
    """One stage killed and run again; all but whether the result is the same."""
    clone.forget(stage)
    process = clone.start(stage)
    wait(clone.log(stage).exists, process)
    time.sleep(delay)
    if at_save:
        wait(lambda: clone.saving(stage), process)
    trainers = clone.trainers(stage) if process.poll() is None else []
    for trainer in trainers[-1:]:
        os.kill(trainer, number)
    said, _ = process.communicate(timeout=PATIENCE)
    end = re.search(r"exited with (-?\d+)", said)
    orphans = clone.processes()
    again = clone.run(stage) if trainers else said
    resumed = re.search(r"resumed from step (\d+)", again)
    return {
        "stage": stage,
        "signal": number.name,
        "seconds": round(delay, 2),
        "at a save": "yes" if at_save else "no",
        "killed": len(trainers[-1:]),
        "exit": int(end[1]) if end else process.returncode,
        "orphans": len(orphans),
        "resumed from step": int(resumed[1]) if resumed else "none saved",
        "leftovers": len(clone.leftovers(stage)),
    }


def equal(found: dict[str, bytes], expected: dict[str, bytes], exactly: bool) -> bool:
    """Whether outputs are the same, to the bit or to rounding."""
    if exactly or found.keys() != expected.keys():
        return found == expected
    return all(_close(name, found[name], content) for name, content in expected.items())


def _close(name: str, found: bytes, expected: bytes) -> bool:
    if name.endswith(".safetensors"):
        one, two = load(found), load(expected)
        return all(np.allclose(one[key], two[key], rtol=1e-4, atol=1e-5) for key in two)
    number = rb"-?\d+\.\d+(?:e-?\d+)?"
    numbers = zip(re.findall(number, found), re.findall(number, expected), strict=False)
    same_text = re.sub(number, b"", found) == re.sub(number, b"", expected)
    return same_text and all(math.isclose(float(a), float(b), rel_tol=1e-3, abs_tol=1e-5) for a, b in numbers)


def main() -> None:
    """Runs all trials."""
    parser = parser_of("benchmarks.kill", __doc__)
    parser.add_argument("--trials", type=int, default=10, help="of each stage and signal")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    count, rows = arguments.processes, []
    file = Path("benchmarks/kill.csv" if count == 1 else f"benchmarks/kill_{count}.csv")
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder) / "clone", count)
        clone.run(STAGES[-1])
        for stage in STAGES:
            clone.forget(stage)
            process = clone.start(stage)
            wait(clone.log(stage).exists, process)
            began = time.monotonic()
            process.communicate()
            seconds, expected = time.monotonic() - began, clone.contents(stage)
            print(f"{stage}: {seconds:.1f} s in peace, {len(expected)} files", flush=True)
            for number in SIGNALS:
                for at in range(arguments.trials):
                    delay = moments.uniform(0, seconds)
                    row = trial(clone, stage, number, delay, at_save=at % 2 == 1)
                    while row["killed"] == 0:  # it was faster this time
                        delay *= 0.7
                        row = trial(clone, stage, number, delay, at_save=at % 2 == 1)
                    same = equal(clone.contents(stage), expected, exactly=count == 1)
                    row["identical" if count == 1 else "equal"] = "yes" if same else "NO"
                    rows.append(row)
                    print(row, flush=True)
                    pd.DataFrame(rows).to_csv(file, index=False)
    table = pd.DataFrame(rows)
    print(markdown(list(table.columns), table.astype(str).to_numpy().tolist()))
    wrong = table[(table.iloc[:, -1] != "yes") | (table.orphans > 0) | (table.leftovers > 0)]
    print(f"{len(table)} trials, {len(wrong)} not as they have to be")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
