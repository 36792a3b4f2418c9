"""The command that keeps a server running."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from score_core.algorithms import SETTINGS
from score_core.config.parsing import load_config
from tasks.commands.sampler import main
from tasks.runner.sampler import longest_asked
from tests.configs import ROOT
from tests.small_run import lay_out, write_parameters
from tests.tasks.runner.test_sampler import server_of, stand_in


def test_a_standing_server_serves_until_it_is_interrupted(small_run: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lay_out(tmp_path, small_run)
    write_parameters(tmp_path, sampling="any")
    settings = yaml.safe_load((ROOT / "runtime.yaml").read_text())
    settings["vllm"] |= {"python": stand_in(tmp_path), "timeout": 120}
    (tmp_path / "runtime.yaml").write_text(yaml.safe_dump(settings))
    with subprocess.Popen(
        [sys.executable, "-m", "tasks.commands.sampler", "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said = [process.stdout.readline(), process.stdout.readline()]
        assert f"launch.sampler: http://127.0.0.1:{port}\n" in said
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
        line = server_of(psutil.Process(process.pid)).cmdline()
        # Also for the method whose dialogues are the longest.
        config = load_config(tmp_path / "params.yaml", SETTINGS)
        longest = longest_asked(config, small_run / "base", config.stage("pag").attempts, verifies=True)
        assert int(line[line.index("--max-model-len") + 1]) == longest
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
    try:
        httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
    except httpx.ConnectError:
        return
    raise AssertionError("the server goes on")


def test_a_server_that_no_section_would_ask_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "config.json").touch()
    assert main(["--model", str(tmp_path)]) == 2
    assert "params.yaml: training.sampling and evaluation.sampling: reproducible" in capsys.readouterr().err
