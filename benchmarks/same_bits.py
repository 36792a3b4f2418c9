"""Whether the results here are the committed ones, to the bit.

    make repro && .venv/bin/python -m benchmarks.same_bits

Prints the hash of every output of the pipeline as DVC has recorded it here (dvc.lock) beside the committed
one (--commit's dvc.lock), and the first stage that differs. Ends with 1 if one does. What DVC
restored from a cache was computed where the cache was filled; `dvc repro --force` computes it here.
"""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of
from tasks.runner.pipeline import read_pipeline

LOCK = Path("dvc.lock")


def hashes(lock: dict[str, Any], stage: str, part: str) -> dict[str, str]:
    """By path, the MD5 of a stage's `outs` or `deps`."""
    return {entry["path"]: entry["md5"] for entry in lock["stages"].get(stage, {}).get(part, ())}


def processor() -> str:
    """Its name as the system knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]}, {torch.backends.cpu.get_cpu_capability()} at its best"


def main() -> None:
    """Compares, prints and exits."""
    parser = parser_of("benchmarks.same_bits", __doc__)
    parser.add_argument("--commit", default="HEAD", metavar="REVISION", help="to compare with (HEAD)")
    commit = parser.parse_args().commit
    shown = subprocess.run(["git", "show", f"{commit}:{LOCK}"], capture_output=True, check=True, text=True)
    committed, here = yaml.safe_load(shown.stdout), yaml.safe_load(LOCK.read_text())
    rows, different = [], []
    for stage in read_pipeline():
        before, after = hashes(committed, stage, "outs"), hashes(here, stage, "outs")
        for path in sorted(before | after):
            pair = before.get(path, "none"), after.get(path, "none")
            rows.append((stage, path, *pair, "same" if pair[0] == pair[1] else "different"))
        if before != after:
            different.append(stage)
    print(f"{processor()}\n\n{markdown(('stage', 'output', 'committed', 'here', ''), rows)}\n")
    if not different:
        print("All outputs are the committed ones.")
        return
    first = different[0]
    before, after = hashes(committed, first, "deps"), hashes(here, first, "deps")
    changed = [path for path in sorted(before | after) if before.get(path) != after.get(path)]
    print(
        f"The first stage that differs is {first}; of what it depends on",
        ", ".join(changed) or "nothing",
        "does.",
    )
    raise SystemExit(1)


if __name__ == "__main__":
    main()
