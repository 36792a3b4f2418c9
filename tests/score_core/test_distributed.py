"""One process against two, under every strategy: the same losses, parameters and answers."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from score_core.models.handover import write_config
from score_core.rl import logprobs
from tasks.runner.launch import command
from tasks.runner.processes import end_with_parent
from tests.configs import runtime
from tests.rank import KINDS, METHODS, ROUNDED, SERVED, SHARED, STOPPED, train, train_methods
from tests.small_run import small_config
from tests.stand_in import StandIn

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = {
    "ddp": "DistributedType.MULTI_CPU",
    "zero2": "DistributedType.DEEPSPEED",
    "zero3": "DistributedType.DEEPSPEED",
    "fsdp2": "DistributedType.FSDP",
}


@pytest.fixture(scope="module")
def server(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """For what a server samples."""
    served = tmp_path_factory.mktemp("served") / "config"
    write_config(small_run / "base", served)
    with StandIn(served, rank=4) as standing:
        yield standing


@pytest.fixture(scope="module")
def alone(small_run: Path, server: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    work = tmp_path_factory.mktemp("alone")
    launch = runtime(launch={"strategy": "single", "sampler": server.address}).launch
    with pytest.MonkeyPatch.context() as restored:
        restored.setattr(logprobs, "CHUNK", logprobs.CHUNK)  # which training sets
        train(small_run, work, launch, [*KINDS, *ROUNDED, *SHARED, *SERVED])
    return work


def together(
    run: Path, work: Path, strategy: str, *kinds: str, fails: bool = False, **environment: str
) -> str:
    """Trains with two processes; returns what they said."""
    line = command(
        "tests.rank",
        [str(run), str(work), *kinds],
        runtime(launch={"strategy": strategy, "processes": 2}).launch,
    )
    done = subprocess.run(
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
        timeout=1200,
        preexec_fn=end_with_parent,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_do_what_one_does(
    small_run: Path, alone: Path, server: StandIn, tmp_path: Path, strategy: str
) -> None:
    kinds = [*KINDS, *ROUNDED, *SHARED, *SERVED]
    said = together(small_run, tmp_path, strategy, *kinds, STOPPED, SAMPLER=server.address)
    assert said.count(f"running as {strategy}: {STRATEGIES[strategy]}, 2 processes") >= 2 * len(kinds)
    layers = small_config().model.layers if strategy == "fsdp2" else 0
    assert {*re.findall(r"a reference of which (\d+) layers are split", said)} == {str(layers)}
    assert {*re.findall(r"gradients are summed in (torch\.[a-z]+\d+)", said)} == (
        {"torch.float32"} if strategy.startswith("zero") else set()
    )
    assert {*re.findall(r"gradients are views: ([A-Z][a-z]+)", said)} == (
        {"True"} if strategy == "ddp" else set()
    )
    released = re.findall(r"of all weights released: (\d+) of (\d+)", said)
    if strategy == "zero3":  # of whole models; of those with adapters these are kept
        assert any(int(gone) > 0.9 * int(all_) for gone, all_ in released), released
    assert {*re.findall(r"of [1-9]\d* gradients whole: (\d+)", said)} == (
        {"0"} if strategy == "fsdp2" else set()
    )
    if strategy == "ddp":
        one, two = (pd.read_parquet(work / "table.parquet") for work in (alone, tmp_path))
        # Batches are whole ones, so texts are equal even where two tokens are nearly as likely.
        pd.testing.assert_frame_equal(two, one)
    compare(tmp_path, alone, [*KINDS, *SHARED, *SERVED])
    compare_rounded(tmp_path, alone, small_run / "untied")
    for kind in SERVED:
        assert json.loads((tmp_path / "metrics" / f"{kind}.json").read_text())["engine"] == "vllm"

    # One of them was told to stop, so both did; others go on.
    for kind in KINDS:
        assert f"{kind}: stopped and saved at step 3 of 5" in said
        assert not (tmp_path / STOPPED / kind).exists()
    said = together(small_run, tmp_path / STOPPED, strategy, *KINDS)
    # Without the line's end: two processes write, and one may do so in between.
    assert len(re.findall(r"resumed from step 3(?!\d)", said)) == 2 * len(KINDS)
    compare(tmp_path / STOPPED, alone)


@pytest.mark.slow
def test_two_processes_train_every_method_as_one_does(small_run: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train_methods(small_run, one, runtime(launch={"strategy": "single"}).launch)
    together(small_run, two, "ddp", "methods")
    compare(two, one, METHODS)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_in_one_process_ends_both(small_run: Path, tmp_path: Path) -> None:
    said = together(small_run, tmp_path, "zero3", "poisoned", fails=True)
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
