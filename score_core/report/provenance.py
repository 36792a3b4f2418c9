"""Which code and which libraries made a page."""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "pandas", "math-verify", "matplotlib")
CODE = ("score_core", "tasks", "prompts", "dvc.yaml")


@dataclass(frozen=True)
class Provenance:
    """Where a page comes from; no times and no machine names, so that equal runs give equal pages."""

    commit: str
    versions: tuple[tuple[str, str], ...]


def provenance(root: Path) -> Provenance:
    """The commit checked out at `root` and the versions installed."""
    versions = [("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            versions.append((name, version(name)))
        except PackageNotFoundError:
            versions.append((name, "not installed"))
    return Provenance(_commit(root), tuple(versions))


def _commit(root: Path) -> str:
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return "not in a git checkout"
    # Only the code counts: a run itself changes dvc.lock and metrics.
    changed = _git(root, "status", "--porcelain", "--", *CODE)
    return f"{commit} with uncommitted changes to the code" if changed else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
