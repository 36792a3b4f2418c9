"""Learning rates of the supervised methods on the embedded default, tried on a seed that the matrix has not.

    python -m benchmarks.supervised_rates --work FOLDER     # 40 minutes on a quiet core

Trains as the cells of experiments/compare do. Writes benchmarks/supervised_rates.csv: validation accuracy at
the end of training. The default profile keeps RL's rate, 0.001, which gives the best second attempt but for
STaR's (docs/methods.md). FOLDER keeps data, models and curves; what is there is not made again.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from benchmarks.arms import METHODS, REMEDY, arms
from benchmarks.tables import markdown
from score_core.files import read_yaml
from tasks.runner.exits import parser_of

TRIED = ("star", "star_right", "pair_sft", "stasc")
RATES = (0.001, 0.0003, 0.0001, 0.00003)
SEED = 21
FIGURES = ["accuracy_t1", "accuracy_t2"]


def run(module: str, output: Path, *arguments: str) -> None:
    """One of the pipeline's commands, unless its output is there."""
    if not output.exists():
        command = [sys.executable, "-m", f"tasks.{module}", str(output), *arguments, "--set", f"seed={SEED}"]
        subprocess.run(command, check=True)


def try_rates(work: Path) -> pd.DataFrame:
    """Trains with every rate; a row each."""
    made = arms(read_yaml(Path("params.yaml"), REMEDY), read_yaml(METHODS, REMEDY), "params.yaml")
    data, base = work / "data", work / "base"
    run("download_data", data)
    run("prepare_base_model", base)
    rows = []
    for name in TRIED:
        params = work / f"{name}.yaml"
        params.write_text(yaml.safe_dump(made[name]))
        for rate in RATES:
            model, metrics = work / f"{name}-{rate:.0e}", work / f"{name}-{rate:.0e}-curves"
            folders = ["--start", base, "--reference", base, "--data", data, "--metrics", metrics]
            settings = ["--params", params, "--set", f"{name}.learning_rate={rate}"]
            run("train", model, "--name", name, *map(str, (*folders, *settings)))
            last = pd.read_csv(f"{metrics}_validation.csv").iloc[-1]
            rows.append({"method": name, "learning_rate": rate, **last[FIGURES]})
    return pd.DataFrame(rows)


def main() -> None:
    """Writes the CSV and prints it."""
    parser = parser_of("benchmarks.supervised_rates", __doc__)
    parser.add_argument(
        "--work", type=Path, required=True, metavar="FOLDER", help="for data, models and curves"
    )
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    table = try_rates(work)
    table.to_csv("benchmarks/supervised_rates.csv", index=False)
    print(markdown(list(table), table.to_numpy()))


if __name__ == "__main__":
    main()
