"""Training as a real process that is told to stop, and that is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tasks.runner.pipeline import read_pipeline
from tests.small_run import lay_out, write_parameters

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
OUTPUTS = ("models/stage2", "metrics")


@pytest.fixture
def workplace(tmp_path: Path, small_run: Path) -> Path:
    """A folder like a checkout, with what Stage II starts from."""
    lay_out(tmp_path, small_run)
    (tmp_path / "models" / "stage1").symlink_to(small_run / "base")
    write_parameters(tmp_path, steps=20)
    runtime = yaml.safe_load((ROOT / "runtime.yaml").read_text())
    runtime["threads"] = 1
    runtime["checkpoints"]["every_seconds"] = 0.01
    (tmp_path / "runtime.yaml").write_text(yaml.safe_dump(runtime))
    return tmp_path


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *read_pipeline()["train_stage2"]["cmd"].split()[1:]],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def made(folder: Path) -> dict[str, bytes]:
    """Every file of the outputs."""
    files = [path for name in OUTPUTS for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob(".runs/train_stage2/*/checkpoint-*")}


def test_a_stopped_and_a_killed_process_leave_no_output_and_go_on(workplace: Path) -> None:
    process = start(workplace)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    expected = made(workplace)
    assert len(expected) > 8
    shutil.rmtree(workplace / ".runs/train_stage2")
    for name in expected:
        (workplace / name).unlink()
    for number, code, message in (
        (signal.SIGTERM, 75, r"stopped and saved at step \d+ of 20; the same command goes on from there"),
        (signal.SIGINT, 75, r"stopped and saved at step"),
        (signal.SIGKILL, -9, ""),
    ):
        before = checkpoints(workplace)
        process = start(workplace)
        while checkpoints(workplace) <= before:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        command = Path(f"/proc/{process.pid}/cmdline")
        assert not command.exists() or b"tasks.train\0models/stage2\0--name\0stage2" in command.read_bytes()
        process.send_signal(number)
        said, _ = process.communicate()
        assert process.returncode == code, said
        assert re.search(message, said) and "Traceback" not in said
        assert bool(before) == bool(re.search(r"resumed from step \d+", said))
        assert made(workplace) == {}
    # The second time as when DVC could not record the outputs, or was killed before it did.
    for step in (r"\d+", "20"):
        process = start(workplace)
        said, _ = process.communicate()
        assert process.returncode == 0, said
        assert re.search(f"resumed from step {step}\n", said)
        assert made(workplace) == expected
        for name in expected:
            (workplace / name).unlink()
    assert checkpoints(workplace) == {"checkpoint-20"}
