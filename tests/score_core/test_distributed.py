"""One process against two, under every strategy: the same losses, parameters and answers."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable
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
from tests.rank import KINDS, METHODS, ROUNDED, train, train_methods
from tests.small_run import small_config

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
        train(small_run, work, runtime(launch={"strategy": "single"}).launch, [*KINDS, *ROUNDED])
    return work


def start(run: Path, work: Path, strategy: str, *kinds: str, **environment: str) -> subprocess.Popen[str]:
    """Training with two processes."""
    line = command(
        "tests.rank",
        [str(run), str(work), *kinds],
        runtime(launch={"strategy": strategy, "processes": 2}).launch,
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


def together(run: Path, work: Path, strategy: str, *kinds: str) -> str:
    """Trains with two processes; returns what they said."""
    process = start(run, work, strategy, *kinds)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def stop(run: Path, work: Path, strategy: str, log: Path) -> None:
    """The same, with one of the processes told to stop after two steps."""
    process = start(run, work, strategy, *KINDS)
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
    said = together(small_run, tmp_path, strategy, *KINDS, *ROUNDED)
    assert said.count(f"running as {strategy}: {STRATEGIES[strategy]}, 2 processes") >= 2 * len(
        KINDS | ROUNDED
    )
    layers = small_config().model.layers if strategy == "fsdp2" else 0
    assert {*re.findall(r"a reference of which (\d+) layers are split", said)} == {str(layers)}
    if strategy == "ddp":
        one, two = (pd.read_parquet(work / "table.parquet") for work in (alone, tmp_path))
        # Batches are whole ones, so texts are equal even where two tokens are nearly as likely.
        pd.testing.assert_frame_equal(two, one)
    compare(tmp_path, alone)
    compare_rounded(tmp_path, alone, small_run / "untied")


@pytest.mark.slow
def test_two_processes_train_every_method_as_one_does(small_run: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train_methods(small_run, one, runtime(launch={"strategy": "single"}).launch)
    together(small_run, two, "ddp", "methods")
    compare(two, one, METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_go_on_where_one_of_them_was_told_to_stop(
    small_run: Path, alone: Path, tmp_path: Path, strategy: str
) -> None:
    for kind in KINDS:
        stop(small_run, tmp_path, strategy, tmp_path / "work" / kind / "log.jsonl")
        assert not (tmp_path / kind).exists()
    said = together(small_run, tmp_path, strategy, *KINDS)
    assert re.search(r"resumed from step [2-4]\n", said)
    compare(tmp_path, alone)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_in_one_process_ends_both(small_run: Path, tmp_path: Path) -> None:
    process = start(small_run, tmp_path, "zero3", *KINDS, POISON="1")
    _, said = process.communicate(timeout=600)
    assert process.returncode != 0
    assert re.search(r"UserError: .*after step 2 loss is nan", said), said
    assert not (tmp_path / "full").exists()


def compare_rounded(work: Path, alone: Path, start: Path) -> None:
    """The runs in bf16: policy and reference round alike, and steps go where those of one process go."""
    for folder in (alone, work):
        for kind in ROUNDED:
            curve = pd.read_csv(folder / "metrics" / f"{kind}_curve.csv")
            assert (curve.loc[0, ["kl_t1", "kl_t2"]] == 0.0).all(), "policy and reference are equal at first"
            assert (curve.loc[1, ["kl_t1", "kl_t2"]] > 0.0).all()
    before, one, two = (
        load_file(folder / "model.safetensors") for folder in (start, alone / "bf16", work / "bf16")
    )
    assert "lm_head.weight" in one and one.keys() == two.keys()
    moved, apart = (
        torch.cat([(found[name].float() - one[name]).flatten() for name in one]).norm()
        for found in (before, two)
    )
    # Adam makes a whole step of a small gradient's rounding; unrelated steps would be 1.4 times as far apart.
    assert apart < moved


def compare(work: Path, alone: Path, kinds: Iterable[str] = KINDS) -> None:
    """Models and curves of two processes with those of one."""
    for kind in kinds:
        for name in ("curve", "validation"):
            one, two = (pd.read_csv(folder / "metrics" / f"{kind}_{name}.csv") for folder in (alone, work))
            for gap in {"gap_mean", "gap_max"} & {*one}:  # rounding, and nothing else
                assert (one.pop(gap) < 1e-4).all() and (two.pop(gap) < 1e-4).all()
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
