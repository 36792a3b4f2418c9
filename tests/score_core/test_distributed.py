"""One process against two, under every strategy: the same losses, parameters and answers."""

import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from score_core import logprobs
from score_core.schema import Launch
from tasks.command_line import end_with_parent
from tasks.launch import command
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
        train(small_run, work, Launch(strategy="single"))
    return work


def together(run: Path, work: Path, strategy: str) -> str:
    """Trains with two processes; returns what they said."""
    line = command("tests.rank", [str(run), str(work)], Launch(strategy=strategy, processes=2))
    done = subprocess.run(
        line,
        cwd=ROOT,
        env={
            **os.environ,
            "STRATEGY": strategy,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **({"ACCELERATE_TORCH_DEVICE": "cpu"} if strategy == "fsdp2" else {}),
        },
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=end_with_parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_do_what_one_does(small_run: Path, alone: Path, tmp_path: Path, strategy: str) -> None:
    said = together(small_run, tmp_path, strategy)
    assert said.count(f"running as {strategy}: {STRATEGIES[strategy]}, 2 processes") >= 2 * len(KINDS)
    if strategy == "ddp":
        one, two = (pd.read_parquet(work / "table.parquet") for work in (alone, tmp_path))
        # Batches are whole ones, so texts are equal even where two tokens are nearly as likely.
        pd.testing.assert_frame_equal(two, one)
    for kind in KINDS:
        for name in ("curve", "validation"):
            one, two = (pd.read_csv(work / "metrics" / f"{kind}_{name}.csv") for work in (alone, tmp_path))
            pd.testing.assert_frame_equal(two, one, rtol=1e-4, atol=1e-6)
        assert {path.name for path in (tmp_path / kind).iterdir()} == {
            path.name for path in (alone / kind).iterdir()
        }
        one, two = (load_file(next((work / kind).glob("*.safetensors"))) for work in (alone, tmp_path))
        assert one.keys() == two.keys()
        for name, expected in one.items():
            assert two[name].dtype == expected.dtype
            # Five steps of 0.001 have moved weights by 500 times the tolerance.
            torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=1e-5)
