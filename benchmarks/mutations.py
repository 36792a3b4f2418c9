"""Errors of method, made one at a time in a copy of the checkout, and the test that sees each.

    .venv/bin/python -m benchmarks.mutations                    # all of mutations.yaml, some minutes
    .venv/bin/python -m benchmarks.mutations --file trainer.py  # those of some files; writes no table

Writes benchmarks/mutations.csv. Ends with 1 if a mutation survived that has no explanation, or did not
survive though it has one.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from tasks.runner.exits import parser_of

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 600  # seconds for the tests of one mutation: one that hangs is seen, too
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?:\[.*)?(?: - .*)?$", re.MULTILINE)

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


def killer(mutation: Mutation, kept: Path) -> str:
    """The first test that fails with the mutation; empty if none does."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder)
        copy(tree)
        (tree / mutation.file).write_text(mutation.applied())
        with (tree / "tests" / "small_run.py").open("a") as file:
            file.write(KEPT.format(kept=str(kept)))
        line = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
        try:
            found = subprocess.run(
                line, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return f"{mutation.tests[0]} (does not end)"
    if found.returncode == 0:
        return ""
    failed = FAILED.findall(found.stdout)
    if found.returncode != 1 or not failed:
        raise RuntimeError(f"{mutation.file}, {mutation.means}: no test ran\n{found.stdout}{found.stderr}")
    return failed[0]


def copy(target: Path) -> None:
    """The checkout's code, tests and settings as they are now, without what git ignores."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


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
        line = [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tests.small_run import prepare; ",
        ]
        line[-1] += "prepare(Path(sys.argv[1]))"
        subprocess.run([*line, str(kept)], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for mutation, test in zip(chosen, pool.map(lambda one: killer(one, kept), chosen), strict=True):
                row = {"file": mutation.file, "mutation": mutation.means}
                rows.append({**row, "killed by": test, "survives because": mutation.survives})
                wrong += bool(test) == bool(mutation.survives)
                print(f"{mutation.file}: {mutation.means}: {test or 'SURVIVED'}", flush=True)
    if not arguments.file:
        pd.DataFrame(rows).to_csv(ROOT / "benchmarks" / "mutations.csv", index=False)
    killed = sum(bool(row["killed by"]) for row in rows)
    print(f"{killed} of {len(rows)} killed; {wrong} not as mutations.yaml says")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
