"""A checkout whose training is killed, as benchmarks/kill.py and benchmarks/deaths.py do it."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tasks.commands.profiles import PARAMS, compose
from tests.test_pipeline import Checkout

# Of stages that train for seconds, and validate and select as large ones do.
OVERRIDES = [
    "data.digits=3",
    "data.sizes={train: 2000, validation: 100, test: 50}",
    "model.steps=100",
    "training.prompts_per_step=16",
    "training.warmup_steps=2",
    "training.validation_problems=100",
    "training.select=validation_accuracy",
]
PATIENCE = 300.0  # seconds until something that has to happen counts as not happening


class Victim(Checkout):
    """A clone of the checkout with small stages, which can be undone and whose processes can be found."""

    def __init__(self, folder: Path, *overrides: str, **runtime: dict[str, Any]) -> None:
        """
        Args:
            overrides: more of them.
            runtime: by section, what runtime.yaml says otherwise.
        """
        super().__init__(folder)
        (self.root / PARAMS).write_text(compose([*OVERRIDES, *overrides], self.root / "conf"))
        settings = yaml.safe_load((self.root / "runtime.yaml").read_text()) | {"threads": 1}
        settings |= {section: settings[section] | values for section, values in runtime.items()}
        (self.root / "runtime.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def undo(self, stage: str) -> None:
        """Removes a stage's results and its checkpoints, and what DVC could restore the former from."""
        lock = yaml.safe_load((self.root / "dvc.lock").read_text())
        lock["stages"].pop(stage, None)
        (self.root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        for folder in (".dvc/cache/runs", f".runs/{stage}"):
            shutil.rmtree(self.root / folder, ignore_errors=True)
        for name in self.results(stage):
            (self.root / name).unlink()

    def results(self, stage: str) -> dict[str, bytes]:
        """Every file of a training stage's model and of its metrics, by path."""
        model = self.root / "models" / stage.removeprefix("train_")
        files = [*model.rglob("*"), *(self.root / "metrics").glob(f"{stage}*")]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files if path.is_file()}

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes in the clone whose command line contains all the words; not their watchdogs."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            line, folder = " ".join(process.info["cmdline"] or ()), Path(process.info["cwd"] or "/")
            wanted = all(word in line for word in words) and "processes.py" not in line
            if wanted and folder.is_relative_to(self.root):
                found.append(process)
        return found


def until(condition: Callable[[], object], pause: float = 0.5) -> bool:
    """Waits; whether the condition came true in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause)
    return False


def wait(condition: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    """Waits until something holds or the process has ended."""
    assert until(lambda: condition() or process.poll() is not None, 0.001), "nothing happened"
