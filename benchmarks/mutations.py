"""Errors of method, made one at a time in a copy of the checkout, and the test that sees each.

    .venv/bin/python -m benchmarks.mutations                    # all of mutations.yaml, some minutes
    .venv/bin/python -m benchmarks.mutations --file trainer.py  # those of some files

Writes benchmarks/mutations.csv, or some files' rows of it. Ends with 1 if a mutation survived that has no
explanation, or did not survive though it has one.
"""

import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tasks.runner.exits import parser_of

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds for the tests of one mutation
LIBRARIES = "accelerate", "peft", "transformers.trainer", "trl"  # which take longer to import than most tests

# Training the tests' base model takes most of the time, and no mutation changes it.
KEPT = """

def prepare(root):
    import shutil
    shutil.copytree({kept!r}, root, dirs_exist_ok=True)
"""


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in `file`, becomes `new`; `tests` are to see it."""

    file: str
    means: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str  # why no test can see it; empty where one has to

    def applied(self) -> str:
        """The file's text with the error in it.

        Raises:
            ValueError: `old` does not stand there once.
        """
        text = (ROOT / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: found {text.count(self.old)} times, expected once: {self.old}")
        return text.replace(self.old, self.new)


def mutations() -> Iterator[Mutation]:
    """Those of mutations.yaml."""
    for group in yaml.safe_load((ROOT / "benchmarks" / "mutations.yaml").read_text()):
        for entry in group["mutations"]:
            yield Mutation(**{"survives": "", "tests": group["tests"], "file": group["file"], **entry})


class FirstFailure:
    """Of a run of pytest, as a plugin."""

    test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called after each part of each test."""
        if report.failed and not self.test:
            self.test = report.nodeid


def killer(mutation: Mutation, kept: Path) -> str:
    """The first test that fails with the mutation; empty if none does. For a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree, said = Path(folder), Path(folder) / "said"
        copy(tree)
        (tree / mutation.file).write_text(mutation.applied())
        with (tree / "tests" / "small_run.py").open("a") as file:
            file.write(KEPT.format(kept=str(kept)))
        ours = {path.stem for path in ROOT.iterdir()}
        for name in [name for name in sys.modules if name.split(".")[0] in ours]:
            del sys.modules[name]
        sys.path.insert(0, str(tree))
        os.chdir(tree)
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        signal.signal(signal.SIGALRM, _too_late)
        signal.alarm(PATIENCE)
        first = FirstFailure()
        code = pytest.main(["-x", "-p", "no:cacheprovider", *mutation.tests], plugins=[first])
        signal.alarm(0)
        os.chdir(ROOT)
        if code not in (0, 1) or bool(code) != bool(first.test):
            raise RuntimeError(f"{mutation.file}: {mutation.means}: tests cannot run\n{said.read_text()}")
    return first.test


def _too_late(*_: object) -> None:
    raise TimeoutError


def copy(target: Path) -> None:
    """The checkout's code, tests and settings as they are now, without what git ignores."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def write(rows: list[dict[str, str]]) -> None:
    """Puts rows into the table, in the order of mutations.yaml, beside those of mutations not tried now."""
    table = ROOT / "benchmarks" / "mutations.csv"
    before = pd.read_csv(table, keep_default_na=False).to_dict("records") if table.exists() else []
    found = {(row["file"], row["mutation"]): row for row in [*before, *rows]}
    order = [(mutation.file, mutation.means) for mutation in mutations()]
    pd.DataFrame([found[key] for key in order if key in found]).to_csv(table, index=False)


def main() -> None:
    """Tries all mutations."""
    parser = parser_of("benchmarks.mutations", __doc__)
    parser.add_argument("--file", default="", help="a part of the names of the files to change")
    parser.add_argument("--jobs", type=int, default=2, help="mutations tried side by side")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in mutations() if arguments.file in mutation.file]
    for mutation in chosen:
        mutation.applied()
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        kept = Path(folder) / "run"
        train = "import sys, pathlib, tests.small_run as run; run.prepare(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", train, str(kept)], cwd=ROOT, check=True, capture_output=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        for name in LIBRARIES:
            importlib.import_module(name)
        with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=1) as pool:
            tried = [pool.apply_async(killer, (mutation, kept)) for mutation in chosen]
            for mutation, result in zip(chosen, tried, strict=True):
                test = result.get()
                row = {"file": mutation.file, "mutation": mutation.means}
                rows.append({**row, "killed by": test, "survives because": mutation.survives})
                wrong += bool(test) == bool(mutation.survives)
                print(f"{mutation.file}: {mutation.means}: {test or 'SURVIVED'}", flush=True)
    write(rows)
    killed = sum(bool(row["killed by"]) for row in rows)
    print(f"{killed} of {len(rows)} killed; {wrong} not as mutations.yaml says")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
