"""requirements.txt pins what the code imports."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.imports import imports_of

ROOT = Path(__file__).resolve().parents[1]
OWN = {"flows", "tasks", "score_core", "tests", "benchmarks"}


def imported() -> set[str]:
    """The first part of every module that our files name in an import."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name for file in listed.stdout.split() for name in imports_of(ROOT / file)}
    return {name.split(".")[0] for name in names} - OWN - sys.stdlib_module_names


def test_every_package_that_is_imported_is_pinned():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {re.split("==", line)[0].lower() for line in lines if "==" in line}
    distributions = packages_distributions()
    missing = {
        module
        for module in imported()
        if not pinned & {name.lower() for name in distributions.get(module, [module])}
    }
    assert not missing
