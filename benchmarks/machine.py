"""What benchmarks/faults.py puts around a stage: a clone in which all is well, and folders that are not."""

import os
import pty
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from score_core.checkpointing.checkpoints import size_of
from tasks.runner.pipeline import outputs_of, read_pipeline
from tests.victims import PATIENCE, Victim

KINDS = ("outs", "metrics", "plots")
PAGE = 4096


class Skipped(Exception):  # noqa: N818 - no error
    """What a fault takes is not to be had here."""


@dataclass
class Run:
    """How a stage is to be run: its command, and what is done to it."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    before: Callable[[], object] | None = None  # in the new process
    during: Callable[[subprocess.Popen[bytes]], object] | None = None
    lift: Callable[[], object] | None = None  # ends the fault with what was written still there
    terminal: bool = False

    def start(self, clone: Victim) -> tuple[int, str]:
        """Runs it; returns the exit code and both streams."""
        said = clone.root.parent / "said"
        with said.open("wb") as file:
            master, slave = pty.openpty() if self.terminal else (None, file.fileno())
            process = subprocess.Popen(
                self.command,
                cwd=clone.root,
                env={**clone.environment, **self.environment},
                stdout=slave,
                stderr=slave,
                preexec_fn=self.before,
                start_new_session=True,
            )
            if self.during:
                self.during(process)
            if master is not None:
                os.close(slave)
                os.close(master)
            process.wait(PATIENCE)
        return process.returncode, said.read_text(errors="replace")


def mount(*arguments: str) -> None:
    """Mounts, or skips."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"skipped: mount says {done.stderr.strip() or done.returncode}")


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """A disk with a folder's content and so many bytes left, in its place; yields what enlarges it."""
    folder.mkdir(parents=True, exist_ok=True)
    size = sum((path.stat().st_size // PAGE + 2) * PAGE for path in folder.rglob("*")) + room
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        mount("-t", "tmpfs", "-o", f"size={size + PAGE}", "tmpfs", str(folder))
        try:
            shutil.copytree(copy, folder, dirs_exist_ok=True)
            filler = folder / "filler"
            filler.write_bytes(b"\0" * max(0, shutil.disk_usage(folder).free - room))
            yield lambda: mount("-o", "remount,size=1g", str(folder))
            filler.unlink()
        finally:
            made = Path(copy, "made")
            shutil.copytree(folder, made)
            subprocess.run(["umount", "-l", str(folder)], check=True)
            shutil.copytree(made, folder, dirs_exist_ok=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, not even root."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,ro,bind", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Patient(Victim):
    """A clone in which the pipeline has run in peace."""

    def __init__(self, folder: Path) -> None:
        sizes = ("training.steps=16", "training.validate_every=4", "model.steps=30")
        super().__init__(folder, *sizes, checkpoints={"every_seconds": 0.2})
        self.run("dvc", "repro")
        self.expected = self.hashes()
        self.sizes = {stage: self._size(stage) for stage in read_pipeline() if outputs_of(stage)}

    def _size(self, stage: str) -> int:
        first = self.root / outputs_of(stage)[0]
        return size_of(first) if first.is_dir() else first.stat().st_size

    def forget(self, stage: str) -> None:
        """Removes a stage's outputs, as DVC does before its command, and all that they could come from."""
        for path in self.outputs(stage):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for kept in (f".runs/{stage}", ".dvc/cache"):
            shutil.rmtree(self.root / kept, ignore_errors=True)

    def outputs(self, stage: str) -> list[Path]:
        return [self.root / path for kind in KINDS for path in outputs_of(stage, kind)]

    def others(self, stage: str) -> dict[str, str]:
        """The hashes of all outputs but a stage's own."""
        own = tuple(str(path.relative_to(self.root)) for path in self.outputs(stage))
        return {name: value for name, value in self.hashes().items() if not name.startswith(own)}
