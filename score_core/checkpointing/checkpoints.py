"""Checkpoints of a run: each is complete or absent, and none is read before its hashes are checked.

    <folder>/checkpoint-40/      sealed: every file in hashes.json, flushed to the disk, then renamed
    <folder>/unfinished/         where the next one is being written; discarded after a crash

A run's folder is named by its fingerprint (see `fingerprint.py`), beside those of other runs of its stage.
"""

import json
import logging
import os
import re
import shutil
import time
from pathlib import Path

from transformers import TrainerState

from score_core.config.runtime import Checkpointing
from score_core.errors import UserError, one_line
from score_core.files import remove, tree_digests

log = logging.getLogger(__name__)

HASHES = "hashes.json"
STATE = "trainer_state.json"  # the Trainer's name for it
ARGUMENTS = "training_args.bin"  # the Trainer's: a pickle, which nothing here reads
DAY = 24 * 60 * 60
CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        unfinished: the folder below which the Trainer writes `checkpoint-<step>` before it is sealed.
    """

    def __init__(self, folder: Path, settings: Checkpointing) -> None:
        self.folder, self.settings = folder, settings
        self.unfinished = folder / "unfinished"

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, ascending."""
        names = (CHECKPOINT.fullmatch(path.name) for path in self.folder.glob("checkpoint-*"))
        return sorted(int(name[1]) for name in names if name)

    def newest(self) -> int | None:
        """The step of the newest intact checkpoint; damaged ones are removed with a warning."""
        for step in reversed(self.steps()):
            fault = self._fault(step)
            if fault is None:
                return step
            log.warning("%s: damaged (%s); falling back to the one before it, if any", self.path(step), fault)
            self._discard(self.path(step))
        return None

    def check(self, step: int) -> None:
        """Checks a checkpoint that is to be read.

        Raises:
            UserError: it is damaged.
        """
        fault = _damage(self.path(step))
        if fault is not None:
            raise UserError(
                f"{self.path(step)}: damaged ({fault}), and it holds the weights to keep; run the same "
                "command again, which resumes from an earlier checkpoint."
            )

    def seal(self, step: int) -> None:
        """Makes the unfinished checkpoint of a step the newest one, and removes those no longer kept."""
        folder = self.unfinished / f"checkpoint-{step}"
        (folder / ARGUMENTS).unlink(missing_ok=True)
        (folder / HASHES).write_text(json.dumps(tree_digests(folder), indent=1))
        for path in (*folder.rglob("*"), folder):
            _flush(path)
        remove(self.path(step))
        folder.replace(self.path(step))
        _flush(self.folder)
        self._keep(self.settings.keep)

    def check_space(self, size: int) -> None:
        """Fails before training, rather than hours later, where checkpoints of `size` bytes will not fit.

        Room is needed for those kept, the best, the one being written, and the outputs.

        Raises:
            UserError: with the numbers.
        """
        there = sum(size_of(self.path(step)) for step in self.steps())
        free = shutil.disk_usage(self.folder).free + there
        needed = (self.settings.keep + 3) * size
        if free < needed:
            raise UserError(
                f"{self.folder}: {_gigabytes(free)} are free on this disk, and {_gigabytes(needed)} are "
                f"needed: {self.settings.keep} checkpoints of {_gigabytes(size)}, the best, one being "
                "written, and the outputs; free some, or lower checkpoints.keep in runtime.yaml."
            )

    def finish(self) -> None:
        """Keeps what the outputs of a run that has ended can be written from again: its end and its best."""
        self._keep(1)
        remove(self.unfinished)

    def clear(self) -> None:
        """Removes the partial checkpoint that a killed run left."""
        remove(self.unfinished)
        self.unfinished.mkdir(parents=True)

    def _fault(self, step: int) -> str | None:
        """What is wrong with a checkpoint, or with that of the best step so far, which it builds on."""
        fault = _damage(self.path(step))
        best = _best_step(self.path(step)) if fault is None else None
        if best not in (None, step):
            fault = _damage(self.path(best))
            return fault and f"the best step's, {self.path(best).name}: {fault}"
        return fault

    def _keep(self, count: int) -> None:
        """Removes all but the newest few, and the best as the newest knows it."""
        newest = self.steps()[-count:]
        for old in {*self.steps()} - {*newest, _best_step(self.path(newest[-1]))}:
            self._discard(self.path(old))

    def _discard(self, path: Path) -> None:
        # Never half there under its name.
        self.unfinished.mkdir(exist_ok=True)
        aside = self.unfinished / f"old-{path.name}"
        path.replace(aside)
        remove(aside)


def size_of(folder: Path) -> int:
    """Bytes in all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prune_runs(stage_folder: Path, current: str, settings: Checkpointing) -> None:
    """Removes checkpoints of a stage's other runs: all but the newest few, and what is old."""
    runs = (path for path in stage_folder.glob("*") if FINGERPRINT.fullmatch(path.name))
    others = [path for path in runs if path.name != current]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    if others and not (stage_folder / current).exists():
        log.info(
            "%s: starting afresh; the checkpoints here are of runs with other parameters, data or code "
            "(after an update: docs/changes.md)",
            stage_folder,
        )
    oldest = time.time() - settings.keep_days * DAY
    for number, path in enumerate(others):
        if number >= settings.keep_runs or path.stat().st_mtime < oldest:
            log.info("%s: removed, checkpoints of an earlier run with other settings", path)
            remove(path)


def _damage(folder: Path) -> str | None:
    try:
        expected = dict(json.loads((folder / HASHES).read_text()))
        found = tree_digests(folder)
        found.pop(HASHES)
        # Another version of the Trainer may have written other keys, which this one's state does not take.
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        if not wrong:
            TrainerState.load_from_json(str(folder / STATE))
    except Exception as error:
        return f"cannot be read: {one_line(error)}"
    return f"{wrong[0]} is not what was written" if wrong else None


def _best_step(folder: Path) -> int | None:
    """The step whose weights were the best when a checkpoint was written; None where nothing selects."""
    return TrainerState.load_from_json(str(folder / STATE)).best_global_step


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
