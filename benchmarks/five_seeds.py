"""The embedded default on five seeds, beside plain two-turn RL of equal length.

Everything is fresh for each seed: data, base model, training. The control, plain two-turn RL, is Stage II
with `alpha = 0`, from the base model, for as many steps as both stages of SCoRe together; it sees the
same problems and the same base model. All figures are greedy, on the test split. No seed is dropped.

    .venv/bin/python -m benchmarks.five_seeds                 # the default's seed and four others
    .venv/bin/python -m benchmarks.five_seeds --seeds 11 12

Writes benchmarks/five_seeds.csv and prints the table as markdown. Finished models are kept under
.runs/five_seeds and taken up again.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from score_core.config.parsing import Config, load_config, load_runtime
from score_core.config.runtime import Runtime
from score_core.data.splits import prepare
from score_core.embedded.addition_model import build
from score_core.evaluation.evaluate import evaluate
from score_core.evaluation.metrics import summarise
from score_core.files import replacing
from score_core.problems import read_problems, write_problems
from score_core.rl.training import Folders, train_stage1, train_stage2

ROOT = Path(".runs/five_seeds")
TABLE = Path("benchmarks/five_seeds.csv")
MODELS = ("base", "stage1", "score", "plain")


def run_seed(config: Config, runtime: Runtime, root: Path) -> dict[str, dict[str, float]]:
    """Trains and evaluates everything for the configuration's seed; returns metrics by model."""
    data = root / "data"

    def make(folder: Path, maker: Callable[[], None]) -> None:
        if not folder.exists():
            start = time.monotonic()
            maker()
            print(f"seed {config.seed}: {folder.name} in {time.monotonic() - start:.0f} s", flush=True)

    def make_data() -> None:
        with replacing(data) as temporary:
            temporary.mkdir()
            for split, problems in prepare(config).splits.items():
                write_problems(temporary, split, problems)

    def build_base() -> None:
        with replacing(root / "base") as temporary:
            build(config.model, config.data, config.seed, temporary, runtime.threads)

    def folders(name: str) -> Folders:
        return Folders(root / "base", data, root / name, root / f"{name}_metrics", root / f"{name}_work")

    plain = config.model_copy(
        update={
            "stage2": config.stage2.model_copy(
                update={"alpha": 0.0, "steps": config.stage1.steps + config.stage2.steps}
            )
        }
    )
    make(data, make_data)
    make(root / "base", build_base)
    make(root / "stage1", lambda: train_stage1(config, runtime, folders("stage1")))
    make(root / "score", lambda: train_stage2(config, runtime, folders("score"), root / "stage1"))
    make(root / "plain", lambda: train_stage2(plain, runtime, folders("plain"), root / "base"))
    test = read_problems(data, "test")
    return {name: summarise(evaluate(root / name, test, config, runtime)) for name in MODELS}


def as_rows(seed: int, metrics: dict[str, dict[str, float]]) -> list[dict[str, float | str | int]]:
    """One row a model."""
    return [
        {
            "seed": seed,
            "model": name,
            **{key: values[key] for key in ("n", "accuracy_t1", "accuracy_t2", "delta")},
            "delta_low": values["ci95"]["delta"][0],
            "delta_high": values["ci95"]["delta"][1],
            **{key: values[key] for key in ("delta_i_to_c", "delta_c_to_i")},
        }
        for name, values in metrics.items()
    ]


def by_seed(table: pd.DataFrame) -> str:
    """Attempt 1 / attempt 2 (delta) in percent, a row a seed."""
    names = {"base": "base", "stage1": "Stage I", "score": "SCoRe", "plain": "plain two-turn RL"}
    lines = []
    for seed, rows in table.groupby("seed"):
        rows = rows.set_index("model")
        cells = [
            f"{100 * rows.accuracy_t1[name]:.1f} / {100 * rows.accuracy_t2[name]:.1f} "
            f"({100 * rows.delta[name]:+.1f})"
            for name in names
        ]
        lines.append([seed, *cells])
    return markdown(["seed", *names.values()], lines)


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
    """Runs the seeds and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    arguments = parser.parse_args()
    config, runtime = load_config(arguments.params), load_runtime(Path("runtime.yaml"))
    rows: list[dict[str, float | str | int]] = []
    for seed in arguments.seeds:
        metrics = run_seed(config.model_copy(update={"seed": seed}), runtime, ROOT / str(seed))
        rows += as_rows(seed, metrics)
        pd.DataFrame(rows).to_csv(TABLE, index=False)
    table = pd.read_csv(TABLE)
    print(by_seed(table))
    print("\n".join(shortfalls(table)) or "every seed shows what the embedded default promises")


if __name__ == "__main__":
    main()
