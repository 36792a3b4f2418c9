"""Stages as processes of their own, in a folder like a checkout."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.runner.pipeline import read_pipeline
from tests.small_run import lay_out, write_parameters

ROOT = Path(__file__).resolve().parents[3]
TWO = {"SCORE_LAUNCH_PROCESSES": "2"}


def runtime_file(folder: Path, **launch: Any) -> Path:
    path = folder / "runtime.yaml"
    settings = yaml.safe_load((ROOT / "runtime.yaml").read_text())
    settings["launch"] |= launch
    path.write_text(yaml.safe_dump({**settings, "threads": 1}))
    return path


@pytest.fixture
def workplace(small_run: Path, tmp_path: Path) -> Path:
    """A folder like a checkout, with the data and the base model of two-digit sums."""
    lay_out(tmp_path, small_run)
    runtime_file(tmp_path)
    write_parameters(tmp_path, steps=2)
    return tmp_path


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
