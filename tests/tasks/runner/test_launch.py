"""How a stage starts itself as several processes: settings, refusals, the command line, killed processes."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from score_core.config.parsing import load_runtime
from score_core.config.runtime import Launch, Runtime
from score_core.distributed import check_strategy, init_processes
from score_core.embedded import tiny_model
from score_core.errors import UserError
from score_core.models.memory import BatchSizes
from score_core.rl.arguments import batch_sizes
from tasks.runner.accelerate_launch import was_killed
from tasks.runner.launch import _on_this_machine, check_kernels, check_launch, command, launch, resolve
from tests.configs import config, runtime
from tests.tasks.runner.stages import ROOT, runtime_file

# ---------------------------------------------------------------------------- settings, no process


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


def test_a_server_is_started_for_the_dialogues_of_the_stages_method(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked, allowed = [], config(training={"sampling": "any"})

    def serve(_: object, attempts: int, verifies: bool) -> str:
        asked.append((attempts, verifies))
        return "http://127.0.0.1:1"

    for section in ("single_turn", "stage1", "pag"):
        launch("tasks.train", [], allowed, runtime(launch={"sampler": "start"}), section, serve)
    assert asked == [(1, False), (2, False), (2, True)]


def test_a_reproducible_stage_starts_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which it sets
    found = launch("tasks.train", [], config(), runtime(launch={"sampler": "start"}), "stage1", no_server)
    assert found.engine == "builtin"


@pytest.mark.parametrize(
    ("section", "settings", "level"),
    [
        ("stage1", {"launch": {"sampler": "start"}}, "WARNING"),
        (None, {"launch": {"sampler": "start"}}, "INFO"),  # models may be evaluated by the built-in engine
        ("stage1", {"engine": "builtin", "launch": {"sampler": "start"}}, None),
        ("stage1", {}, None),
    ],
)
def test_a_sampler_that_nobody_asks_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    section: str | None,
    settings: dict[str, Any],
    level: str | None,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which it sets
    caplog.set_level("INFO")
    launch("tasks.train", [], config(), runtime(**settings), section, no_server)
    said = [(one.levelname, one.getMessage()) for one in caplog.records if "sampler" in one.getMessage()]
    assert [found for found, _ in said] == ([level] if level else [])
    key = f"{section or 'evaluation'}.sampling"
    assert all(f"launch.sampler: start is not used: params.yaml: {key}" in words for _, words in said)


SERVER = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("settings", "sampling", "left"),
    [
        ({"launch": {"sampler": "start"}}, "any", 0.75),
        ({"launch": {"sampler": "start"}, "vllm": {"gpus": "1"}}, "any", 1.0),
        ({"launch": {"sampler": SERVER}}, "any", 1.0),
        ({"launch": {"sampler": SERVER, "sampler_beside": True}}, "any", 0.75),
        ({"launch": {"sampler": "start"}}, "reproducible", 1.0),
    ],
)
def test_a_server_on_the_trainers_gpus_is_left_its_share_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any], sampling: str, left: float
) -> None:
    """Once it is started its address says nothing of where it is."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    tiny_model.build("qwen2", 7, tmp_path / "base")
    allowing = config(training={"sampling": sampling})
    how = runtime(**{**settings, "vllm": {"memory": 0.25, **settings.get("vllm", {})}})
    found = launch("tasks.train", [], allowing, how, "stage1", lambda *_: SERVER)
    assert found.launch.sampler in ("start", SERVER)

    def sizes(how: Runtime, memory: float) -> BatchSizes:
        gpu = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: gpu)
        return batch_sizes(allowing, how, tmp_path / "base", 1000)

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("score_core.rl.arguments.CHUNK", 1000)
    monkeypatch.setattr("score_core.models.memory.READ", 1000)
    assert sizes(found, 4e8) == sizes(runtime(), left * 4e8)
    assert sizes(runtime(), 4e8).tokens > sizes(runtime(), 3e8).tokens


def test_all_processes_know_of_a_server_beside_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: dict[str, str] = {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(
        "tasks.runner.launch._supervise", lambda _, environment, ending: told.update(environment) or 0
    )
    file = runtime_file(tmp_path, strategy="ddp", processes=2, sampler="start")
    with pytest.raises(SystemExit):
        launch(
            "tasks.train",
            [],
            config(training={"sampling": "any"}),
            load_runtime(file),
            "stage1",
            lambda *_: SERVER,
        )
    found = load_runtime(file, told).launch
    assert (found.sampler, found.sampler_beside) == (SERVER, True)


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
