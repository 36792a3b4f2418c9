"""What the Prefect flow costs on top of `dvc repro`, with everything to run and with everything up to date.

    .venv/bin/python -m benchmarks.flow

In a clone of the checkout at smoke size, with a server that is up; the two take turns. Writes
benchmarks/flow.csv and prints a markdown table.
"""

import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from tasks.commands.profiles import PARAMS, compose
from tests.flows.server import Server
from tests.test_pipeline import STAGES, Checkout

COMMANDS = {"dvc repro": ("dvc", "repro"), "flow": ("python", "-m", "flows.reproduce")}
TURNS = 3


def measure(checkout: Checkout) -> pd.DataFrame:
    """One row per run: turn, command, what there was to do, seconds."""
    rows = []
    for turn in range(TURNS):
        for name, command in COMMANDS.items():
            # All results go, as if nothing had ever run.
            checkout.git("clean", "-fdxq", "--exclude", ".prefect")
            checkout.git("checkout", "-q", "dvc.lock", "metrics")
            for done in ("all run", "all up to date"):
                began = time.monotonic()
                checkout.run(*command)
                rows.append((turn, name, done, round(time.monotonic() - began, 2)))
                print(*rows[-1], flush=True)
    return pd.DataFrame(rows, columns=["turn", "command", "done", "seconds"])


def table(measured: pd.DataFrame) -> str:
    """Medians and their differences, as markdown."""
    medians = measured.groupby(["done", "command"])["seconds"].median().unstack()
    medians["per stage"] = (medians["flow"] - medians["dvc repro"]) / len(STAGES)
    medians["ratio"] = medians["flow"] / medians["dvc repro"]
    shown = medians[["dvc repro", "flow", "per stage", "ratio"]]
    header = ["", "`dvc repro`, s", "flow, s", "overhead per stage, s", "ratio"]
    return markdown(header, shown.round(1).reset_index().to_numpy())


def main() -> None:
    """Measures and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(Path(folder))
        (checkout.root / PARAMS).write_text(compose(["smoke=yes"], checkout.root / "conf"))
        server = Server(checkout)
        try:
            measured = measure(checkout)
        finally:
            server.stop()
    measured.to_csv("benchmarks/flow.csv", index=False)
    print(table(measured))


if __name__ == "__main__":
    main()
