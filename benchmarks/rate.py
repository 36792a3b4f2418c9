"""How many trajectories a second Stage I of the embedded default trains here, in several circumstances.

    .venv/bin/python -m benchmarks.rate            # a quarter of an hour

Circumstances take turns, in a clone of the checkout, so that a machine that slows down slows them all:

* quiet, as the stages run by default: kernels pinned (tasks/runner/command_line.py), waiting threads sleep;
* the kernels that torch and MKL choose for this processor;
* threads that spin while they wait, which is OpenMP's own choice;
* the first and the third beside two busy processes.

Writes benchmarks/rate.csv: the median of the rounds, and its ratio to the first circumstance.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from score_core.files import read_yaml
from tasks.runner.command_line import KERNELS
from tasks.runner.exits import parser_of
from tests.test_pipeline import Checkout

STEPS, WARM_UP = 24, 4
OWN_KERNELS = dict.fromkeys(KERNELS, "")
SPINNING = {"OMP_WAIT_POLICY": "active"}
# What it is, what the environment says otherwise, and how many processes are busy beside it.
CIRCUMSTANCES = [
    ("as by default", {}, 0),
    ("kernels of this processor", OWN_KERNELS, 0),
    ("waiting threads spin", SPINNING, 0),
    ("two busy processes beside it", {}, 2),
    ("two busy processes beside it, waiting threads spin", SPINNING, 2),
]
TRAIN = (
    "tasks.train models/stage1 --name stage1 --start models/base --reference models/base "
    "--data data/prepared --metrics metrics/train_stage1 "
    f"--set training.steps={STEPS} --set training.validate_every={STEPS}"
)


def rate(root: Path, environment: dict[str, str], busy: int) -> float:
    """Trajectories a second, between the end of the warm-up steps and that of the last one."""
    for left in (root / ".runs", root / "models" / "stage1"):
        shutil.rmtree(left, ignore_errors=True)
    log, seen, ended = root / ".runs" / "train_stage1" / "log.jsonl", 0, {}
    with ExitStack() as stack:
        for _ in range(busy):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        trainer = subprocess.Popen(
            [sys.executable, "-m", *TRAIN.split()],
            cwd=root,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(trainer.wait)
        while trainer.poll() is None and seen < STEPS:
            time.sleep(0.005)
            lines = log.read_text().splitlines() if log.exists() else []
            seen = sum('"kind": "step"' in line for line in lines)
            ended.setdefault(seen, time.monotonic())
    assert seen == STEPS, f"training ended after {seen} of {STEPS} steps"
    training = read_yaml(root / "params.yaml", "take it from git")["training"]
    trajectories = training["prompts_per_step"] * training["samples_per_prompt"]
    return (STEPS - WARM_UP) * trajectories / (ended[STEPS] - ended[WARM_UP])


if __name__ == "__main__":
    parser = parser_of("benchmarks.rate", __doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times each circumstance (3)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Checkout(Path(folder)).root
        for command in ("download_data data/prepared", "prepare_base_model models/base --set model.steps=50"):
            subprocess.run([sys.executable, "-m", *f"tasks.{command}".split()], cwd=root, check=True)
        rates: dict[str, list[float]] = {name: [] for name, _, _ in CIRCUMSTANCES}
        for number in range(rounds):
            for name, environment, busy in CIRCUMSTANCES:
                rates[name].append(rate(root, environment, busy))
                print(f"round {number + 1}: {name}: {rates[name][-1]:.0f} a second", flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    quiet = medians[CIRCUMSTANCES[0][0]]
    rows = [(name, round(value), round(value / quiet, 2)) for name, value in medians.items()]
    table = pd.DataFrame(rows, columns=["circumstance", "trajectories_a_second", "ratio"])
    table.to_csv("benchmarks/rate.csv", index=False)
    print(markdown(list(table), table.to_numpy()))
