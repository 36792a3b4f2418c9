"""Checkpoints of finished trainings: kept until DVC has recorded what was written.

Outputs are safe once DVC has copied them to its cache and rewritten dvc.lock. That may fail, or not come to
pass, after a stage has ended well; and DVC removes outputs before it runs a stage again. With its last
checkpoint still there the command then writes them again without training. Once they are recorded it trains,
as `dvc repro --force` asks for.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import yaml

from score_core.files import remove, write_json

log = logging.getLogger(__name__)
NOTE = "finished.json"


def note_finished(run: Path, output: Path) -> None:
    """Notes that the training whose checkpoints are in `run` has written its outputs.

    Args:
        output: a file that speaks for all of them; one of the `outs` in dvc.yaml.
    """
    state = _state(_lock_of(output))
    write_json(run / NOTE, {"output": str(output), "md5": _md5(output), "lock": state})


def remove_recorded(runs: Path) -> None:
    """Removes the checkpoints of every training in `runs` whose outputs DVC has recorded since."""
    for note in runs.glob(f"*/*/{NOTE}"):
        if _is_recorded(**json.loads(note.read_text())):
            log.debug("%s: removed, DVC has recorded the outputs", note.parent)
            remove(note.parent)


def _is_recorded(output: str, md5: str, lock: list[Any] | None) -> bool:
    file = _lock_of(Path(output))
    # Equal results may have been recorded before: it must have been written since.
    if file is None or _state(file) == lock:
        return False
    try:
        stages = yaml.safe_load(file.read_text())["stages"].values()
    except (OSError, TypeError, KeyError, ValueError, yaml.YAMLError):
        return False  # for DVC to complain about
    name = Path(output).relative_to(file.parent).as_posix()
    outs = [out for stage in stages for out in stage.get("outs", [])]
    return any((out.get("path"), out.get("md5")) == (name, md5) for out in outs)


def _lock_of(output: Path) -> Path | None:
    """The dvc.lock that is, or will be, nearest above an output."""
    return next((folder / "dvc.lock" for folder in output.parents if (folder / "dvc.lock").exists()), None)


def _state(lock: Path | None) -> list[Any] | None:
    """Differs whenever the file was written in between; not by its time alone, since clocks jump."""
    if lock is None:
        return None
    found = lock.stat()
    return [str(lock), found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
