"""Stages that start themselves as several processes: what is refused, how they run, how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from score_core.config.parsing import load_runtime
from score_core.config.runtime import Launch
from score_core.distributed import check_strategy, init_processes
from score_core.errors import UserError
from tasks.runner.accelerate_launch import was_killed
from tasks.runner.launch import _on_this_machine, check_kernels, check_launch, command, launch, resolve
from tasks.runner.pipeline import read_pipeline
from tests.configs import config, runtime
from tests.small_run import lay_out, write_parameters

ROOT = Path(__file__).resolve().parents[3]
TWO = {"SCORE_LAUNCH_PROCESSES": "2"}


# ---------------------------------------------------------------------------- settings, no process


def runtime_file(folder: Path, **launch: Any) -> Path:
    path = folder / "runtime.yaml"
    settings = yaml.safe_load((ROOT / "runtime.yaml").read_text())
    settings["launch"] |= launch
    path.write_text(yaml.safe_dump({**settings, "threads": 1}))
    return path


def launch_settings(**launch: Any) -> Launch:
    return runtime(launch=launch).launch


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        ({"strategy": "ddp", "offload": True}, "offload: ddp keeps everything on the accelerator; use zero2"),
        ({"strategy": "single", "processes": 2}, "single is one process; use ddp, zero2, zero3 or fsdp2"),
        ({"machines": 2, "main_port": 29500}, "need a main_address that all of them reach"),
        ({"machines": 2, "machine_rank": 2}, "machine_rank: 2 of machines: 2; ranks start at 0"),
        ({"strategy": "zero4"}, "launch.strategy: "),
        ({"proceses": 2}, "launch.proceses: unknown key; did you mean processes?"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, launch: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"runtime\.yaml") as refused:
        load_runtime(runtime_file(tmp_path, **launch))
    assert said in str(refused.value)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = runtime_file(tmp_path, strategy="ddp", machines=2, main_address="10.0.0.1", main_port=29500)
    launch = load_runtime(file, {"SCORE_LAUNCH_MACHINE_RANK": "1", "SCORE_LAUNCH_PROCESSES": "null"}).launch
    assert (launch.machine_rank, launch.processes, launch.machines) == (1, None, 2)
    with pytest.raises(UserError, match=r"SCORE_LAUNCH_RANK of the environment: launch\.rank: unknown key"):
        load_runtime(file, {"SCORE_LAUNCH_RANK": "1"})


def test_a_command_that_is_not_here_starts_nothing() -> None:
    through = runtime(launch={"through": "nonesuch --nodes 2"})
    with pytest.raises(UserError, match=r"runtime\.yaml: launch\.through: no command nonesuch here"):
        launch("tasks.evaluate", [], config(), through, None, serve=lambda *_: "")


def no_server(*_: object) -> str:
    raise AssertionError("a server is started")


def test_an_engine_that_cannot_work_is_refused_before_a_server_is_started() -> None:
    named = runtime(engine="vllm", launch={"sampler": "start"})
    with pytest.raises(UserError, match=r"params\.yaml: stage1\.sampling: reproducible expects"):
        launch("tasks.train", [], config(), named, "stage1", no_server)
    with pytest.raises(UserError, match=r"params\.yaml: evaluation\.sampling: reproducible expects"):
        launch("tasks.evaluate", [], config(training={"sampling": "any"}), named, None, no_server)
    packed = config(model=PACKED, lora=LORA, training={"sampling": "any"})
    with pytest.raises(UserError, match=r"engine: vllm is handed whole weights, .* nf4"):
        launch("tasks.train", [], packed, named, "stage1", no_server)
    uneven = named.model_copy(update={"launch": named.launch.model_copy(update={"processes": 3})})
    with pytest.raises(UserError, match="not divisible by the 3 processes"):
        launch("tasks.train", [], config(training={"sampling": "any"}), uneven, "stage1", no_server)


def test_a_reproducible_stage_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which it sets
    found = launch("tasks.train", [], config(), runtime(launch={"sampler": "start"}), "stage1", no_server)
    assert found.engine == "builtin"


LORA = {"rank": 4, "alpha": 8, "targets": "all-linear"}
PACKED = {"source": "local", "path": "x", "quantize": "nf4"}
REFUSED = [
    ({"strategy": "ddp", "processes": 1}, {}, "ddp of one process is single"),
    ({"strategy": "fsdp2", "processes": 2}, {}, "fsdp2 needs GPUs and none is visible"),
    (
        {"processes": 3},
        {},
        r"prompts_per_step: 64 is not divisible by the 3 processes .*1, 2, 4, 8, 16, 32, 64",
    ),
    (
        {"strategy": "zero3"},
        {"lora": LORA, "model": PACKED},
        "4-bit weights are not split by zero3; .* use ddp",
    ),
    ({}, {"lora": LORA, "model": PACKED}, "bitsandbytes is not installed|need a GPU and none is visible"),
    (
        {"strategy": "zero2"},
        {"model": {"source": "local", "path": "x", "dtype": "bfloat16"}},
        "model.dtype: bfloat16 needs GPUs and none is visible",
    ),
]


@pytest.mark.parametrize(("launch", "sections", "said"), REFUSED)
def test_combinations_that_do_not_work_are_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, launch: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=said):
        check_launch(config(**sections), resolve(launch_settings(**launch)), "stage1")


def test_kernels_that_cannot_run_here_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("score_core.config.runtime.find_spec", lambda _: True)
    flash, liger = runtime(attention="flash_attention_2"), runtime(fused_kernels="liger")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    check_kernels(config(), runtime())
    with pytest.raises(UserError, match=r"attention: flash_attention_2 needs a GPU .*; use attention: auto"):
        check_kernels(config(), flash)
    with pytest.raises(UserError, match=r"fused_kernels: liger needs a GPU .*; use fused_kernels: none"):
        check_kernels(config(), liger)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_kernels(config(), liger)
    with pytest.raises(
        UserError, match=r"flash_attention_2 computes in bfloat16, and .* model\.dtype is float32"
    ):
        check_kernels(config(), flash)


def test_packed_weights_are_not_trained_themselves() -> None:
    with pytest.raises(UserError, match=r"model.quantize: nf4 weights are not trained themselves; set lora"):
        config(model=PACKED)


def test_auto_takes_all_gpus_or_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, expected in ((0, ("single", 1)), (1, ("single", 1)), (4, ("ddp", 4))):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        launch = resolve(launch_settings())
        assert (launch.strategy, launch.processes) == expected
    with pytest.raises(UserError, match="8 processes and 4 visible GPUs"):
        check_launch(config(), resolve(launch_settings(processes=8)), None)


def test_another_strategy_in_effect_than_asked_for_is_an_error() -> None:
    with pytest.raises(UserError, match="asked for zero2 with 2 processes, and what runs is single with 1"):
        check_strategy(init_processes(), launch_settings(strategy="zero2", processes=2))


def test_the_long_command_line() -> None:
    launch = launch_settings(
        strategy="zero3", processes=8, machines=2, machine_rank=1, main_address="a", main_port=1, offload=True
    )
    line = " ".join(command("tasks.train", ["out", "--name", "stage1"], launch))
    assert (
        "--num_processes 16 --num_machines 2 --machine_rank 1 --main_process_ip a --main_process_port 1"
        in line
    )
    assert "launch/zero3.yaml" in line and "--offload_param_device cpu" in line
    assert line.endswith("--module tasks.train out --name stage1")


# ------------------------------------------------------------------------ processes that are killed


@pytest.mark.parametrize(
    ("codes", "lost"),
    [
        ([-6], True),
        ([-9], True),
        ([-6, -15], True),
        ([1], False),
        ([-6, 1], False),
        ([-11], False),
        ([-15], False),
    ],
)
def test_a_process_that_was_killed_is_not_one_with_a_bug(codes: list[int], lost: bool) -> None:
    failures = {rank: ProcessFailure(rank, 1, code, "") for rank, code in enumerate(codes)}
    assert was_killed(ChildFailedError("a stage", failures)) is lost


# As NCCL's watchdog ends its process: `os.abort` raises SIGABRT, too.
ABORTED = "import os, time\nos.abort() if os.environ['RANK'] == '1' else time.sleep(60)"


@pytest.mark.slow
def test_a_process_that_aborts_ends_the_run_as_one_to_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "aborted.py").write_text(ABORTED)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}")
    settings = launch_settings(strategy="ddp", processes=2)
    assert _on_this_machine(command("aborted", [], settings), settings) == os.EX_TEMPFAIL
    said = capfd.readouterr().err
    assert "a process of this run was killed (Signal 6 (SIGABRT)" in said and "Traceback" not in said


# --------------------------------------------------------------------------------- whole stages


@pytest.fixture
def workplace(small_run: Path, tmp_path: Path) -> Path:
    """A folder like a checkout, with the data and the base model of two-digit sums."""
    lay_out(tmp_path, small_run)
    runtime_file(tmp_path)
    write_parameters(tmp_path, steps=2)
    return tmp_path


@pytest.fixture(scope="module")
def single(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes in such a folder."""
    folder = tmp_path_factory.mktemp("single")
    lay_out(folder, small_run)
    runtime_file(folder)
    write_parameters(folder, steps=2)
    finish(start("train_stage1", folder))
    return folder


def command_of(stage: str) -> list[str]:
    """The command that dvc.yaml has for a stage, by this Python."""
    return [sys.executable, *read_pipeline()[stage]["cmd"].split()[1:]]


def start(
    stage: str, folder: Path, prefix: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, *command_of(stage)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0, seconds: float = 120) -> str:
    """What a stage said, which has to end with `code`."""
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, said
    return said


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
