"""Tries inputs that nobody meant and counts what came of them: `make fuzz`.

    .venv/bin/python -m benchmarks.fuzz --inputs 2000

Writes benchmarks/fuzz.csv, a row a kind of input, and prints it; what left a traceback, hung or changed an
output although it was refused is printed too, and makes the exit code 1. The same inputs are tried each time.
"""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of
from tests.fuzz import KINDS
from tests.fuzz_trial import outcomes
from tests.fuzz_workplace import lay_out

RESULT = Path(__file__).with_suffix(".csv")
OUTCOMES = ("accepted", "refused", "traceback", "hang", "output changed")


def main() -> int:
    """Tries, prints and writes; returns the exit code."""
    parser = parser_of("benchmarks.fuzz", __doc__)
    parser.add_argument("--inputs", type=int, default=2000, metavar="N", help="how many, of all kinds (2000)")
    inputs = parser.parse_args().inputs
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        for kind, share in KINDS.items():
            found = outcomes(kind, inputs * share // 100, Path(folder))
            came = [outcome for outcome, _ in found]
            rows.append([kind.__name__.replace("_", " "), len(came), *map(came.count, OUTCOMES)])
            print(rows[-1], flush=True)
            for outcome, said in found:
                if outcome not in ("accepted", "refused"):
                    wrong += 1
                    print(f"\n{outcome}\n{said}", flush=True)
    table = pd.DataFrame(rows, columns=["input", "tried", *OUTCOMES])
    table.to_csv(RESULT, index=False)
    print("\n" + markdown(list(table.columns), table.to_numpy().tolist()))
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
