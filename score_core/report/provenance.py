"""Which code and which libraries made a page."""

import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "pandas", "math-verify", "matplotlib")
CODE = ("score_core", "tasks", "prompts", "dvc.yaml")


def provenance(root: Path) -> dict[str, Any]:
    """The `commit` checked out at `root` and the `versions` installed.

    No times and no machine names, so that equal runs give equal pages.
    """
    installed = {found.name.lower(): found.version for found in distributions()}
    libraries = ((name, installed.get(name, "not installed")) for name in LIBRARIES)
    return {"commit": _commit(root), "versions": [("Python", platform.python_version()), *libraries]}


def _commit(root: Path) -> str:
    # Only changes to the code count: a run itself changes dvc.lock and metrics.
    commands = ("git", "rev-parse", "HEAD"), ("git", "status", "--porcelain", "--", *CODE)
    try:
        commit, changed = (
            subprocess.run(line, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for line in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return f"{commit} with uncommitted changes to the code" if changed else commit
