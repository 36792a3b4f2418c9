"""Whether the pinned kernels (tasks/runner/command_line.py) give the same bits on other processors.

    .venv/bin/python -m benchmarks.kernels                      # this processor, as far as it can pretend
    .venv/bin/python -m benchmarks.kernels Haswell-noTSX EPYC-Rome   # and these, emulated: 10 minutes each

Makes the embedded base model, for a few steps of its training (initialisation, forward, backward, AdamW), as
the stage does it: with the pins, with what this processor would choose, and under QEMU's user emulation
(package qemu-user) of the named processors, with the pins. Prints the hashes of the weights, and writes
benchmarks/kernels.csv. For whole results see benchmarks/same_bits.py.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.same_bits import processor
from benchmarks.tables import markdown
from tasks.runner.command_line import KERNELS
from tasks.runner.exits import parser_of

MAKE = ("-m", "tasks.prepare_base_model", "--set", "model.steps=3", "--set", "model.batch_size=16")


def made(environment: dict[str, str], *emulator: str) -> str:
    """The hash of the weights that a process makes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            # An emulator takes no link for the program; the environment's packages follow by name.
            [*emulator, os.path.realpath(sys.executable), *MAKE, f"{folder}/base"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return hashlib.sha256(Path(folder, "base", "model.safetensors").read_bytes()).hexdigest()[:16]


if __name__ == "__main__":
    parser = parser_of("benchmarks.kernels", __doc__)
    parser.add_argument("emulated", nargs="*", metavar="CPU", help="as `qemu-x86_64 -cpu help` names it")
    emulated = parser.parse_args().emulated
    here = processor()
    rows = [(here, "pinned", made({})), (here, "its own", made(dict.fromkeys(KERNELS, "")))]
    for name in emulated:
        rows.append((f"{name}, emulated", "pinned", made({}, "qemu-x86_64", "-cpu", name)))
    table = pd.DataFrame(rows, columns=["processor", "kernels", "weights"])
    table["same"] = ["yes" if weights == rows[0][2] else "no" for weights in table["weights"]]
    table.to_csv("benchmarks/kernels.csv", index=False)
    print(markdown(list(table), table.to_numpy()))
