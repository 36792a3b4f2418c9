"""A stage's sampling server: how it is started, how it ends, and what is said where it does not come up."""

import json
import re
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from peft import LoraConfig, get_peft_model

from score_core.errors import UserError
from score_core.models.folders import load_model
from tasks.runner.processes import GRACE
from tasks.runner.sampler import longest_asked, sampler
from tests.configs import config, runtime
from tests.small_run import small_config
from tests.tasks.runner.stages import ROOT, TWO, finish, start, workplace

__all__ = ["workplace"]  # a fixture


def interpreter(folder: Path, script: str) -> str:
    """A program that is started in place of the Python that has vLLM."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def stand_in(folder: Path) -> str:
    return interpreter(folder, f'export PYTHONPATH={ROOT}\nexec {sys.executable} -m tests.stand_in "$@"')


def starting(python: str, **vllm: Any) -> Any:
    return runtime(threads=1, launch={"sampler": "start"}, vllm={"python": python, **vllm})


def server_of(process: psutil.Process) -> psutil.Process:
    """The stand-in that a process has started."""
    (server,) = (child for child in process.children(recursive=True) if "tests.stand_in" in child.cmdline())
    return server


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_it_is_started_for_the_model_and_ends_with_the_block(small_run: Path, tmp_path: Path) -> None:
    settings = starting(stand_in(tmp_path), arguments="--swap-space 2", memory=0.3)
    with sampler(small_config(), settings, small_run / "base", 2, tmp_path / "runs") as address:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
        assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "policy"
        server = server_of(psutil.Process())
        line = server.cmdline()
        environment = server.environ()
    assert gone(server)
    assert "stand-in is up" in (tmp_path / "runs" / "server.log").read_text()
    options = dict(pairwise(line))
    expected = {
        "--load-format": "dummy",
        "--logprobs-mode": "processed_logprobs",
        "--generation-config": "vllm",
        "--host": "127.0.0.1",
        "--dtype": "float32",
        "--max-model-len": "33",
        "--gpu-memory-utilization": "0.3",
        "--swap-space": "2",
    }
    assert options.items() >= expected.items()
    assert environment["VLLM_SERVER_DEV_MODE"] == environment["HF_HUB_OFFLINE"] == "1"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert not Path(options["--model"]).exists()


def test_it_has_room_for_the_correction_that_validation_asks_for(small_run: Path) -> None:
    one, two = (longest_asked(small_config(), small_run / "base", attempts, False) for attempts in (1, 2))
    assert one == two == 33, "as the server's --max-model-len above"


def test_it_has_room_for_the_adapters_that_it_is_asked_for(small_run: Path, tmp_path: Path) -> None:
    def started(rank: int | None, model: Path) -> tuple[dict[str, str], dict[str, str]]:
        settings = small_config(lora=rank and {"rank": rank, "alpha": 8})
        with sampler(settings, starting(stand_in(tmp_path)), model, 2, tmp_path):
            server = server_of(psutil.Process())
            return dict(pairwise(server.cmdline())), server.environ()

    route = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
    options, environment = started(None, small_run / "base")
    assert "--enable-lora" not in options and route not in environment
    options, environment = started(9, small_run / "base")
    assert options["--max-lora-rank"] == "16" and environment[route] == "1"
    # Also where a whole model would be trained, and an adapter's is evaluated.
    folder = tmp_path / "adapter"
    adapter = LoraConfig(r=32, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(load_model(small_run / "base"), adapter).save_pretrained(str(folder))
    options, _ = started(None, folder)
    assert options["--max-lora-rank"] == "32" and "--enable-lora" in options


def test_a_standing_server_is_left_alone(tmp_path: Path) -> None:
    settings = runtime(launch={"sampler": "http://10.1.2.3:8000/"})
    with sampler(config(), settings, tmp_path / "unread", 2, tmp_path) as address:
        assert address == "http://10.1.2.3:8000"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'ValueError: Head size 8 is not supported'; exit 1",
            r"ended instead .*\(ValueError: Head",
        ),
        ("exec sleep 60", "no server at .* after 1 s; look into .*server.log"),
    ],
)
def test_a_server_that_does_not_come_up_is_one_line(
    small_run: Path, tmp_path: Path, script: str, said: str
) -> None:
    settings = starting(interpreter(tmp_path, script), timeout=1.0)
    with (
        pytest.raises(UserError, match=said),
        sampler(small_config(), settings, small_run / "base", 2, tmp_path),
    ):
        pass
    assert not [p for p in psutil.Process().children(recursive=True) if "sleep" in p.cmdline()]


def test_where_vllm_is_not_installed_the_line_says_how(small_run: Path, tmp_path: Path) -> None:
    settings = starting(str(tmp_path / "nothing"))
    with (
        pytest.raises(UserError, match=r"vllm\.python: .*nothing not found; run `make vllm`"),
        sampler(small_config(), settings, small_run / "base", 2, tmp_path),
    ):
        pass


# --------------------------------------------------------------------------------- whole stages


@pytest.fixture
def served(workplace: Path) -> Path:
    """A checkout whose stages start the stand-in."""
    for name, key, changes in (
        ("runtime.yaml", "launch", {"sampler": "start"}),
        ("runtime.yaml", "vllm", {"python": stand_in(workplace)}),
        ("runtime.yaml", "checkpoints", {"every_seconds": 0.001}),
        ("params.yaml", "training", {"sampling": "any", "steps": 4, "validate_every": 4}),
        ("params.yaml", "evaluation", {"sampling": "any"}),
    ):
        content = yaml.safe_load((workplace / name).read_text())
        content[key] |= changes
        (workplace / name).write_text(yaml.safe_dump(content))
    return workplace


def servers(folder: Path) -> list[psutil.Process]:
    """The stand-ins that were started for a checkout."""
    return [
        process
        for process in psutil.process_iter()
        if "tests.stand_in" in (line := _line(process)) and process.cwd() == str(folder) and line
    ]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until_trained(folder: Path, process: Any) -> None:
    log = folder / ".runs/train_stage1/log.jsonl"
    while not (log.exists() and '"step": 1,' in log.read_text()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_stage_starts_its_server_and_stops_it(served: Path) -> None:
    """One for its two processes; and one for the single process of another stage."""
    said = finish(start("train_stage1", served, **TWO))
    assert said.count("the server is up after") == 1
    assert not servers(served)
    manifest = json.loads((served / ".runs/train_stage1/manifest.json").read_text())
    assert manifest["engine"] == manifest["runtime"]["engine"] == "vllm" and manifest["reproducible"] is False
    assert json.loads((served / "metrics/train_stage1.json").read_text())["engine"] == "vllm"
    finish(start("evaluate_stage1", served))
    assert json.loads((served / "metrics/stage1.json").read_text())["engine"] == "vllm"
    assert not servers(served)


@pytest.mark.slow
def test_the_server_dies_with_its_stage_and_the_stage_goes_on_after_the_servers_death(served: Path) -> None:
    process = start("train_stage1", served)
    until_trained(served, process)
    (server,) = servers(served)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + GRACE
    while not gone(server):
        assert time.monotonic() < until
        time.sleep(0.05)

    process = start("train_stage1", served)
    while not servers(served):
        assert process.poll() is None
        time.sleep(0.01)
    while '"step": 2,' not in (served / ".runs/train_stage1/log.jsonl").read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    servers(served)[0].kill()
    _, said = process.communicate(timeout=60)
    if process.returncode:  # it may have been done sampling
        assert process.returncode == 2
        assert re.fullmatch(r"error: launch\.sampler: .* does not answer .*\.", said.splitlines()[-1]), said
        said = finish(start("train_stage1", served))
        assert "resumed from step" in said
    assert (served / "models/stage1").exists() and not servers(served)
