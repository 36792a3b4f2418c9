"""Whole stages as several processes, on one machine and on two: what they make, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.small_run import lay_out, write_parameters
from tests.tasks.runner.stages import ROOT, TWO, command_of, finish, runtime_file, start, workplace

__all__ = ["workplace"]  # a fixture


@pytest.fixture(scope="module")
def single(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes in such a folder."""
    folder = tmp_path_factory.mktemp("single")
    lay_out(folder, small_run)
    runtime_file(folder)
    write_parameters(folder, steps=2)
    finish(start("train_stage1", folder))
    return folder


@pytest.mark.slow
def test_stages_run_as_two_processes_and_one_writes(workplace: Path) -> None:
    said = finish(start("train_stage1", workplace, **TWO))
    assert "accelerate_launch" in said and "--module tasks.train models/stage1 --name stage1" in said
    assert said.count("running as ddp: DistributedType.MULTI_CPU, 2 processes") == 1
    assert "by 2 processes; most memory in one: " in said
    manifest = json.loads((workplace / ".runs/train_stage1/manifest.json").read_text())
    assert manifest["processes"] == 2 and manifest["peak_memory_bytes"] > 1e8
    assert (manifest["runtime"]["launch"]["strategy"], manifest["runtime"]["launch"]["processes"]) == (
        "ddp",
        2,
    )

    finish(start("evaluate_stage1", workplace, **TWO))
    two = (
        (workplace / "metrics/stage1.json").read_text(),
        pd.read_parquet(workplace / "generations/stage1.parquet"),
    )
    finish(start("evaluate_stage1", workplace))
    assert (workplace / "metrics/stage1.json").read_text() == two[0]
    pd.testing.assert_frame_equal(pd.read_parquet(workplace / "generations/stage1.parquet"), two[1])


@pytest.mark.slow
def test_a_mistake_found_by_the_processes_is_one_line_and_exit_code_2(workplace: Path) -> None:
    (workplace / "models" / "base").unlink()
    said = finish(start("train_stage1", workplace, **TWO), code=2)
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        "error: models/base: no such folder; expected a transformers model folder."
    ]
    assert "Traceback" not in said


def training(process: subprocess.Popen[str], log: Path, seconds: float = 60) -> list[psutil.Process]:
    """Waits for the first steps; returns the stage's launcher and processes."""
    end = time.monotonic() + seconds
    while not (log.exists() and log.read_text().count('"kind": "step"') > 2):
        assert time.monotonic() < end and process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_end_with_the_stage(workplace: Path, number: signal.Signals) -> None:
    write_parameters(workplace, steps=10_000, validate_every=10_000)
    process = start("train_stage1", workplace, **TWO)
    children = training(process, workplace / ".runs/train_stage1/log.jsonl")
    lines = [child.cmdline() for child in children]
    trainers = [line for line in lines if line[1:] == ["-u", *command_of("train_stage1")[1:]]]
    assert len(trainers) == 2, "the process list shows which stage a trainer runs"
    process.send_signal(number)
    said = finish(process, -9 if number == signal.SIGKILL else os.EX_TEMPFAIL, 40)
    _, alive = psutil.wait_procs(children, timeout=40)
    assert not alive
    if number != signal.SIGKILL:
        assert "Traceback" not in said
    assert not (workplace / "models/stage1").exists()


# ------------------------------------------------------------------------------ several machines


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[tuple[str, ...]]]:
    """Two network namespaces with an address each; yields what to put before a command to run it in them."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    names = [f"score{os.getpid() % 10_000}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", names[1], "netns", names[1])
    except (OSError, subprocess.CalledProcessError) as error:
        for name in names:
            ip("netns", "del", name, check=False)
        pytest.skip(f"network namespaces cannot be made here: {error}")
    for number, name in enumerate(names, start=1):
        inside = ("netns", "exec", name, "ip")
        ip(*inside, "address", "add", f"10.77.0.{number}/24", "dev", name)
        ip(*inside, "link", "set", name, "up")
        ip(*inside, "link", "set", "lo", "up")
    yield [("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={name}") for name in names]
    for name in names:
        ip("netns", "del", name)


CLUSTER = {
    "SCORE_LAUNCH_MACHINES": "2",
    "SCORE_LAUNCH_PROCESSES": "1",
    "SCORE_LAUNCH_MAIN_ADDRESS": "10.77.0.1",
    "SCORE_LAUNCH_MAIN_PORT": "29511",
}

# In place of SLURM's: the command that follows, once on every node.
SRUN = """#!{python}
import os, subprocess, sys
assert sys.argv[1] == "--kill-on-bad-exit=1"
runs = [
    subprocess.Popen([*prefix, f"SLURM_NODEID={{node}}", *sys.argv[2:]])
    for node, prefix in enumerate({machines})
]
sys.exit(max(run.wait() for run in runs))
"""
SCONTROL = "#!/bin/sh\necho 10.77.0.1\necho 10.77.0.2\n"
DVC = "#!/bin/sh\nexec {command}\n"  # of `dvc repro train_stage1`


@pytest.mark.slow
def test_a_slurm_job_on_two_machines_trains_what_one_process_does(
    workplace: Path, single: Path, machines: list[tuple[str, ...]]
) -> None:
    (workplace / "launch").symlink_to(ROOT / "launch")
    (workplace / "bin").mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "dvc": DVC}.items():
        script = workplace / "bin" / name
        line = " ".join(command_of("train_stage1"))
        script.write_text(text.format(python=sys.executable, machines=machines, command=line))
        script.chmod(0o755)
    job = subprocess.run(
        ["bash", "launch/slurm/score.sbatch", "train_stage1"],
        cwd=workplace,
        env={
            **os.environ,
            "PATH": f"{workplace / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "SLURM_SUBMIT_DIR": str(workplace),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_ID": "4711",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert job.returncode == 0, job.stderr
    assert job.stderr.count("running as ddp: DistributedType.MULTI_CPU, 2 processes on 2 machines") == 2
    together, alone = (
        pd.read_csv(folder / "metrics/train_stage1_curve.csv") for folder in (workplace, single)
    )
    pd.testing.assert_frame_equal(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_machine_that_dies_ends_the_other(workplace: Path, machines: list[tuple[str, ...]]) -> None:
    write_parameters(workplace, steps=10_000, validate_every=10_000)
    stages = [
        start("train_stage1", workplace, prefix, **CLUSTER, SCORE_LAUNCH_MACHINE_RANK=str(rank))
        for rank, prefix in enumerate(machines)
    ]
    training(stages[0], workplace / ".runs/train_stage1/log.jsonl")
    dead = psutil.Process(stages[1].pid).children(recursive=True)
    for process in [*dead, stages[1]]:
        process.kill()
    said = finish(stages[0], code=os.EX_TEMPFAIL, seconds=60)
    assert "another process of this run has ended or cannot be reached" in said
    stages[1].communicate()
