"""Training stages killed at random moments, run again by `dvc repro`, and compared bit by bit.

In a clone of the checkout, at a size that trains for seconds: each stage runs once in peace; then, for
each signal, ten times until a moment of its training drawn at random, in every second trial the first save
behind it, and again to its end. What DVC would restore without training is taken out of its lock and run
cache first.

    .venv/bin/python -m benchmarks.kill                   # 40 trials, half an hour on 2 busy cores
    .venv/bin/python -m benchmarks.kill --processes 2     # the same under ddp; one of the processes is killed

Writes benchmarks/kill.csv (kill_2.csv) and prints the table as markdown. Ends with 1 if a trial was not as it
has to be: equal to the last bit for one process, to rounding for more.
"""

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from safetensors.numpy import load

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of
from tests.victims import PATIENCE, Victim, wait

STAGES = ("train_stage1", "train_stage2")
SIGNALS = (signal.SIGTERM, signal.SIGKILL)
STEPS = ("training.steps=24", "training.validate_every=4")


def start(clone: Victim, stage: str) -> subprocess.Popen[str]:
    """`dvc repro` of a stage, and of what comes before it, which has begun to train, or has ended."""
    process = subprocess.Popen(
        ["dvc", "repro", stage],
        cwd=clone.root,
        env=clone.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait((clone.root / ".runs" / stage / "log.jsonl").exists, process)
    return process


def trainers(clone: Victim, stage: str) -> list[psutil.Process]:
    """Those that train: no shells and, of many processes, no launchers."""
    found = clone.processes("tasks.train ", f"--name {stage.removeprefix('train_')} ")
    pythons = [process for process in found if "python" in process.name()]
    return [process for process in pythons if "LOCAL_RANK" in process.environ()] or pythons


def leftovers(clone: Victim, stage: str) -> list[Path]:
    """Temporary files anywhere, and checkpoints of the stage once a later one has found it recorded."""
    look = "from tasks.runner.recorded import *; remove_recorded(Path('.runs'))"
    clone.run("python", "-c", look)
    temporary = [path for path in clone.root.rglob("*") if path.suffix in (".tmp", ".probe")]
    checkpoints = [path for path in (clone.root / ".runs" / stage).iterdir() if path.is_dir()]
    return [path for path in temporary + checkpoints if ".dvc/" not in str(path)]


def trial(clone: Victim, stage: str, number: signal.Signals, delay: float, at_save: bool) -> dict | None:
    """One stage killed and run again; None where it had ended before."""
    clone.undo(stage)
    process = start(clone, stage)
    time.sleep(delay)
    try:
        trainer = trainers(clone, stage)[-1]
        if at_save:
            unfinished = clone.root / ".runs" / stage
            wait(lambda: any(unfinished.glob("*/unfinished/checkpoint-[1-9]*")), process)
        trainer.send_signal(number)
    except (psutil.NoSuchProcess, IndexError):
        return None
    finally:
        said, _ = process.communicate(timeout=PATIENCE)
    end = re.search(r"exited with (-?\d+)", said)
    orphans = clone.processes("tasks.")
    resumed = re.search(r"resumed from step (\d+)", clone.run("dvc", "repro", stage))
    return {
        "stage": stage,
        "signal": number.name,
        "seconds": round(delay, 2),
        "at a save": "yes" if at_save else "no",
        "exit": int(end[1]) if end else process.returncode,
        "orphans": len(orphans),
        "resumed from step": int(resumed[1]) if resumed else "none saved",
        "leftovers": len(leftovers(clone, stage)),
    }


def close(name: str, found: bytes, expected: bytes) -> bool:
    """Whether two files agree to rounding."""
    if name.endswith(".safetensors"):
        one, two = load(found), load(expected)
        return all(np.allclose(one[key], two[key], rtol=1e-4, atol=1e-5) for key in two)
    number = rb"-?\d+\.\d+(?:e-?\d+)?"
    if re.sub(number, b"", found) != re.sub(number, b"", expected):
        return False
    return np.allclose(*(np.array(re.findall(number, of), float) for of in (found, expected)), 1e-3, 1e-5)


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
    launch = {"strategy": "ddp" if count > 1 else "single", "processes": count}
    with tempfile.TemporaryDirectory() as folder:
        clone = Victim(Path(folder), *STEPS, checkpoints={"every_seconds": 0.5}, launch=launch)
        clone.run("dvc", "repro", STAGES[-1])
        for stage in STAGES:
            clone.undo(stage)
            process, began = start(clone, stage), time.monotonic()
            process.communicate()
            seconds, expected = time.monotonic() - began, clone.results(stage)
            print(f"{stage}: {seconds:.1f} s in peace, {len(expected)} files", flush=True)
            for number in SIGNALS:
                for at in range(arguments.trials):
                    delay = moments.uniform(0, seconds)
                    while (row := trial(clone, stage, number, delay, at_save=at % 2 == 1)) is None:
                        delay *= 0.7
                    found = clone.results(stage)
                    same = found.keys() == expected.keys() and all(
                        found[name] == content or (count > 1 and close(name, found[name], content))
                        for name, content in expected.items()
                    )
                    row["identical" if count == 1 else "equal"] = "yes" if same else "NO"
                    rows.append(row)
                    print(row, flush=True)
                    pd.DataFrame(rows).to_csv(file, index=False)
    table = pd.DataFrame(rows)
    print(markdown(table.columns, table.to_numpy()))
    wrong = table[(table.iloc[:, -1] != "yes") | (table.orphans > 0) | (table.leftovers > 0)]
    print(f"{len(table)} trials, {len(wrong)} not as they have to be")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()
