"""The table of experiments/five_seeds: the embedded default on five seeds, beside plain two-turn RL.

    python -m benchmarks.five_seeds METRICS OUTPUT

METRICS holds the evaluations as <seed>-<model>.json. Writes OUTPUT.csv, and OUTPUT.md with what a seed does
not show of what the embedded default promises. `dvc repro` in experiments/five_seeds makes the former and
calls this.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.tables import markdown
from score_core.files import read_json, replacing
from tasks.runner.exits import parser_of

MODELS = {"base": "base", "stage1": "Stage I", "score": "SCoRe", "plain": "plain two-turn RL"}
COLUMNS = ["seed", "model", "n", "accuracy_t1", "accuracy_t2"]
COLUMNS += ["delta", "delta_low", "delta_high", "delta_i_to_c", "delta_c_to_i"]


def read_table(folder: Path) -> pd.DataFrame:
    """One row a seed and model."""
    rows: list[dict[str, Any]] = []
    for seed in sorted({int(file.name.split("-")[0]) for file in folder.glob("*.json")}):
        for model in MODELS:
            metrics = read_json(folder / f"{seed}-{model}.json", made_by=f"evaluate@{seed}-{model}")
            low, high = metrics["ci95"]["delta"]
            rows.append(metrics | {"seed": seed, "model": model, "delta_low": low, "delta_high": high})
    return pd.DataFrame(rows)[COLUMNS]


def by_seed(table: pd.DataFrame) -> str:
    """Attempt 1 / attempt 2 (delta) in percent, a row a seed."""
    cells = [
        f"{100 * row.accuracy_t1:.1f} / {100 * row.accuracy_t2:.1f} ({100 * row.delta:+.1f})"
        for row in table.itertuples()
    ]
    wide = table.assign(cell=cells).pivot(index="seed", columns="model", values="cell")[list(MODELS)]
    return markdown(["seed", *MODELS.values()], wide.reset_index().to_numpy())


def shortfalls(table: pd.DataFrame) -> list[str]:
    """What the embedded default promises and a seed does not show."""
    found = []
    for seed, rows in table.groupby("seed"):
        base, score = (rows.set_index("model").loc[name] for name in ("base", "score"))
        checks = {
            "base delta within 2 points of 0": abs(base.delta) <= 0.02,
            "final delta at least 5 points": score.delta >= 0.05,
            "final delta's interval above 0": score.delta_low > 0,
            "attempt 2 at least 15 points above the base's": score.accuracy_t2 >= base.accuracy_t2 + 0.15,
            "attempt 1 at most 3 points below the base's": score.accuracy_t1 >= base.accuracy_t1 - 0.03,
        }
        found += [f"seed {seed}: not {name}" for name, holds in checks.items() if not holds]
    return found


def main() -> None:
    """Writes both files and prints the table."""
    parser = parser_of("benchmarks.five_seeds", __doc__)
    parser.add_argument("metrics", type=Path, metavar="METRICS", help="the folder of evaluations")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the two files, without their suffixes")
    given = parser.parse_args()
    table = read_table(given.metrics)
    verdict = "\n".join(shortfalls(table)) or "Every seed shows what the embedded default promises."
    text = f"{by_seed(table)}\n\n{verdict}\n"
    print(text)
    for suffix, content in ((".csv", table.to_csv(index=False)), (".md", text)):
        with replacing(given.output.with_suffix(suffix)) as temporary:
            temporary.write_text(content)


if __name__ == "__main__":
    main()
