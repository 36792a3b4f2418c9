"""When the checkpoints of a finished training go, under a real DVC; its stage only pretends to train."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.runner.recorded import note_finished, remove_recorded

ROOT = Path(__file__).resolve().parents[3]
RUN = Path(".runs/train/0123456789abcdef")
LOG = Path("metrics/train.jsonl")
STAGE = """
import sys
from pathlib import Path
sys.path.insert(0, %r)
from tasks.runner.recorded import note_finished, remove_recorded

remove_recorded(Path(".runs"))
run = Path(%r)
print("RESUMED" if run.exists() else "TRAINED")
run.mkdir(parents=True, exist_ok=True)
Path("metrics").mkdir(exist_ok=True)
Path("metrics/train.jsonl").write_text("the same every time")
note_finished(run, Path("metrics/train.jsonl"))
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dvc(*arguments: str) -> tuple[int, str]:
    line = [str(Path(sys.executable).parent / "dvc"), *arguments]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_until_dvc_has_recorded_what_was_written() -> None:
    Path("stage.py").write_text(STAGE % (str(ROOT), str(RUN)))
    command = f"{sys.executable} stage.py"
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": {"cmd": command, "outs": [str(LOG)]}}}))
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\nno_scm = True\nanalytics = false\n[cache]\ndir = ../cache\n")
    Path("cache").write_text("a file where the cache would be: nothing can be stored")
    code, said = dvc("repro")
    assert code != 0 and "TRAINED" in said
    Path("cache").unlink()
    code, said = dvc("repro")
    assert code == 0 and "RESUMED" in said
    assert RUN.exists(), "DVC records after the stage has ended"
    code, said = dvc("repro", "--force")
    assert code == 0 and "TRAINED" in said
    remove_recorded(Path(".runs"))
    assert not RUN.exists()


def test_what_was_recorded_before_does_not_count() -> None:
    """As in a fresh clone, whose dvc.lock has the same results and whose cache is empty."""
    RUN.mkdir(parents=True)
    LOG.parent.mkdir()
    LOG.write_text("{}")
    entry = {"path": str(LOG), "md5": hashlib.md5(b"{}").hexdigest()}
    content = yaml.safe_dump({"stages": {"train": {"outs": [entry]}}})
    Path("dvc.lock").write_text(content)
    note_finished(RUN, LOG)
    remove_recorded(Path(".runs"))
    assert RUN.exists()
    Path("dvc.lock").write_text(content)
    os.utime("dvc.lock", (0, 0))  # by a clock that was wrong
    remove_recorded(Path(".runs"))
    assert not RUN.exists()


@pytest.mark.parametrize(
    ("lock", "there"),
    [
        ("stages: {train: {outs: [{path: train.jsonl, md5: MD5}]}}", False),
        ("stages: {train: {cmd: ls}, other: {outs: [{path: train.jsonl, md5: MD5}]}}", False),
        ("stages: {train: {outs: [{path: train.jsonl, md5: another}]}}", True),
        ("stages: {train: {outs: [{path: metrics/train.jsonl, md5: MD5}]}}", True),
        ("stages: {train: {}}", True),
        ("<<<<<<< HEAD", True),
        ("[]", True),
    ],
)
def test_what_counts_as_recorded(lock: str, there: bool) -> None:
    RUN.mkdir(parents=True)
    LOG.parent.mkdir()
    LOG.write_text("{}")
    Path("dvc.lock").write_text("stages: {}")
    note_finished(RUN, LOG)
    # Nearer than the one above, as those of experiments are.
    content = lock.replace("MD5", hashlib.md5(LOG.read_bytes()).hexdigest())
    Path("metrics/dvc.lock").write_text(content)
    remove_recorded(Path(".runs"))
    assert RUN.exists() == there
