"""One process against two, under every strategy: the same losses, parameters and answers."""

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file

from score_core.rl import logprobs
from tasks.runner.launch import command
from tasks.runner.processes import end_with_parent
from tests.configs import runtime
from tests.rank import KINDS, train

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = {
    "ddp": "DistributedType.MULTI_CPU",
    "zero2": "DistributedType.DEEPSPEED",
    "zero3": "DistributedType.DEEPSPEED",
    "fsdp2": "DistributedType.FSDP",
}


@pytest.fixture(scope="module")
def alone(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    work = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as restored:
        restored.setattr(logprobs, "CHUNK", logprobs.CHUNK)  # which training sets
        train(small_run, work, runtime(launch={"strategy": "single"}).launch)
    return work


def start(run: Path, work: Path, strategy: str, **environment: str) -> subprocess.Popen[str]:
    """Training with two processes."""
    line = command(
        "tests.rank", [str(run), str(work)], runtime(launch={"strategy": strategy, "processes": 2}).launch
    )
    return subprocess.Popen(
        line,
        cwd=ROOT,
        env={
            **os.environ,
            "STRATEGY": strategy,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **({"ACCELERATE_TORCH_DEVICE": "cpu"} if strategy == "fsdp2" else {}),
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )


def together(run: Path, work: Path, strategy: str) -> str:
    """Trains with two processes; returns what they said."""
    process = start(run, work, strategy)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def stop(run: Path, work: Path, strategy: str, log: Path) -> None:
    """The same, with one of the processes told to stop after two steps."""
    process = start(run, work, strategy)
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.append(process.stderr.read()))
    reading.start()
    while not (log.exists() and '"step": 2,' in log.read_text()):
        assert process.poll() is None, said
        time.sleep(0.01)
    psutil.Process(process.pid).children()[1].terminate()
    assert process.wait(timeout=600) != 0
    reading.join()
    assert re.search(r"Stopped: stopped and saved at step [2-4] of 5", said[0]), said[0]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_do_what_one_does(small_run: Path, alone: Path, tmp_path: Path, strategy: str) -> None:
    said = together(small_run, tmp_path, strategy)
    assert said.count(f"running as {strategy}: {STRATEGIES[strategy]}, 2 processes") >= 2 * len(KINDS)
    if strategy == "ddp":
        one, two = (pd.read_parquet(work / "table.parquet") for work in (alone, tmp_path))
        # Batches are whole ones, so texts are equal even where two tokens are nearly as likely.
        pd.testing.assert_frame_equal(two, one)
    compare(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_go_on_where_one_of_them_was_told_to_stop(
    small_run: Path, alone: Path, tmp_path: Path, strategy: str
) -> None:
    for kind in KINDS:
        stop(small_run, tmp_path, strategy, tmp_path / "work" / kind / "log.jsonl")
        assert not (tmp_path / kind).exists()
    said = together(small_run, tmp_path, strategy)
    assert re.search(r"resumed from step [2-4]\n", said)
    compare(tmp_path, alone)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_in_one_process_ends_both(small_run: Path, tmp_path: Path) -> None:
    process = start(small_run, tmp_path, "zero3", POISON="1")
    _, said = process.communicate(timeout=600)
    assert process.returncode != 0
    assert re.search(r"UserError: .*after step 2 loss is nan", said), said
    assert not (tmp_path / "full").exists()


def compare(work: Path, alone: Path) -> None:
    """Models and curves of two processes with those of one."""
    for kind in KINDS:
        for name in ("curve", "validation"):
            one, two = (pd.read_csv(folder / "metrics" / f"{kind}_{name}.csv") for folder in (alone, work))
            pd.testing.assert_frame_equal(two, one, rtol=1e-4, atol=1e-6)
        assert {path.name for path in (work / kind).iterdir()} == {
            path.name for path in (alone / kind).iterdir()
        }
        one, two = (load_file(next((folder / kind).glob("*.safetensors"))) for folder in (alone, work))
        assert one.keys() == two.keys()
        for name, expected in one.items():
            assert two[name].dtype == expected.dtype
            # Five steps of 0.001 have moved weights by 500 times the tolerance.
            torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=1e-5)
