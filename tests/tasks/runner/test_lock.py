"""Who waits for whom, between real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Says that it has the lock, and gives it back when told to.
HOLDER = """
import logging, pathlib, sys
from tasks.runner import lock

logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
lock.MACHINE = pathlib.Path(sys.argv[4])
with lock.exclusive(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == "accelerated"):
    print("has it", flush=True)
    sys.stdin.readline()
"""
SMI = """#!/bin/sh
printf 'GPU-a\\nGPU-b\\n'
"""


class Machine:
    """Some accelerators, and checkouts on one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen] = []
        (folder / "bin").mkdir()
        (folder / "bin" / "nvidia-smi").write_text(SMI)
        (folder / "bin" / "nvidia-smi").chmod(0o755)

    def start(
        self, stage: str, checkout: str, *, gpus: str | None = None, accelerated: bool = True
    ) -> subprocess.Popen:
        """A process that wants to run a stage; `gpus` None is a machine without any."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        if gpus is not None:
            environment["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}"
            if gpus != "all":
                environment["CUDA_VISIBLE_DEVICES"] = gpus
        arguments = [
            stage,
            str(self.folder / checkout / stage),
            "accelerated" if accelerated else "plain",
            str(self.folder / "machine"),
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.started.append(process)
        return process


@pytest.fixture
def machine(tmp_path: Path):
    made = Machine(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def test_the_second_waits_and_says_for_whom(machine):
    first = machine.start("train_stage1", "here", gpus="all")
    assert first.stdout.readline() == "has it\n"
    second = machine.start("train_stage2", "there", gpus="1")
    said = second.stdout.readline()
    assert f"waiting for train_stage1 (process {first.pid} in " in said and "GPU-b.lock" in said
    assert second.poll() is None
    first.stdin.write("\n")
    assert second.stdout.readline() == "has it\n"


def test_the_kernel_frees_the_lock_of_a_killed_process(machine):
    first = machine.start("train_stage1", "here", gpus="all")
    assert first.stdout.readline() == "has it\n"
    second = machine.start("train_stage1", "there", gpus="all")
    assert "waiting" in second.stdout.readline()
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "has it\n"


def test_a_waiting_process_can_be_ended(machine):
    first = machine.start("train_stage1", "here", gpus="all")
    assert first.stdout.readline() == "has it\n"
    second = machine.start("train_stage1", "there", gpus="all")
    assert "waiting" in second.stdout.readline()
    second.send_signal(signal.SIGINT)
    second.wait(timeout=10)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"gpus": "0"}, {"gpus": "1"}, id="other GPUs"),
        pytest.param({"gpus": "GPU-a"}, {"gpus": "1"}, id="other GPUs, one by name"),
        pytest.param({}, {}, id="no GPUs"),
        pytest.param({"gpus": "all"}, {"gpus": "-1"}, id="told to use none"),
        pytest.param({"gpus": "all"}, {"gpus": "all", "accelerated": False}, id="a stage that uses none"),
    ],
)
def test_who_shares_nothing_does_not_wait(machine, first, second):
    holders = [machine.start("train_stage1", name, **how) for name, how in (("a", first), ("b", second))]
    assert [holder.stdout.readline() for holder in holders] == ["has it\n", "has it\n"]


def test_a_stage_runs_once_at_a_time_in_a_checkout(machine):
    first = machine.start("report", "here", accelerated=False)
    assert first.stdout.readline() == "has it\n"
    second = machine.start("report", "here", accelerated=False)
    assert "waiting for report" in second.stdout.readline()
    third = machine.start("evaluate_base", "here", accelerated=False)
    assert third.stdout.readline() == "has it\n"
    time.sleep(0.05)
    assert second.poll() is None
