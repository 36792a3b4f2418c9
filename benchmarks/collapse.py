"""The monitor of collapse on ten runs that are made to collapse, and on ten sound ones.

    .venv/bin/python -m benchmarks.collapse --work FOLDER     # ten minutes on a quiet core

Runs of 80 steps of 16 prompts x 8 on sums of three digits, small enough for many. Made to collapse: no Stage
I on a base model that leaks nothing (copies), credit across turns with a large bonus (spoils the first
attempt), no KL and five times the learning rate (loses its entropy). Sound: both stages of SCoRe. The bounds
in score_core/rl/collapse.py were chosen on runs of another seed (`--seeds 21`).

Writes benchmarks/collapse.csv: for each run what it came to on validation problems, and what the monitor
told. FOLDER keeps models and curves; runs that are there are not run again. A run made to collapse may not,
and a sound one may: what it came to says which.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.tables import markdown
from score_core.algorithms import SETTINGS, make_algorithm
from score_core.config.parsing import load_runtime, parse_config
from score_core.config.schema import Config
from score_core.embedded.addition import make_problems
from score_core.embedded.addition_model import build
from score_core.files import read_json, read_yaml, replacing
from score_core.problems import write_problems
from score_core.rl.collapse import CollapseMonitor
from score_core.rl.training import Folders, train
from tasks.runner.exits import parser_of

SIZES: dict[str, dict[str, Any]] = {
    "data": {"digits": 3, "sizes": {"train": 2000, "validation": 200, "test": 200}},
    "model": {"hidden_size": 48, "feed_forward": 128, "steps": 500, "batch_size": 96},
    "conversation": {"max_new_tokens": 6, "max_prompt_tokens": 24},
    "training": {
        "steps": 80,
        "prompts_per_step": 16,
        "samples_per_prompt": 8,
        "validation_problems": 200,
        "warmup_steps": 5,
    },
}
LEAK = 0.02  # of what the sound ones start from
SEEDS = (31, 32, 33, 34, 35)


@dataclass(frozen=True)
class Run:
    """A run of training.

    Attributes:
        made_to: the sign that it should show; "" for a sound one.
        stage: of params.yaml, with `changes`.
        start: the stage of the same seed that it goes on from; None: the base model.
        leak: the base model's.
    """

    made_to: str
    seed: int
    stage: str
    start: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    leak: float = LEAK

    @property
    def name(self) -> str:
        return f"{self.seed}-{(self.made_to or self.stage).replace(' ', '_')}"


def runs(seeds: tuple[int, ...]) -> Iterator[Run]:
    """As many sound ones as others, of five seeds ten each."""
    failing = {"alpha": 10.0, "gamma": 1.0, "allow_paid_failure": True}
    for number, seed in enumerate(seeds):
        yield Run("", seed, "stage1")
        yield Run("", seed, "stage2", "stage1")
        if number < 4:
            yield Run("copying", seed, "stage2", leak=0.0)
        if number < 3:
            yield Run("spoiling", seed, "stage2", "stage1", failing)
            yield Run("no entropy", seed, "two_turn", None, {"beta1": 0.0, "learning_rate": 0.005})


def configuration(run: Run) -> Config:
    """The embedded default's, small, with the run's changes."""
    content = read_yaml(Path("params.yaml"), "`git checkout` restores it") | {"seed": run.seed}
    for section, values in SIZES.items():
        content[section] |= values
    content["model"]["leak"] = run.leak
    content[run.stage] |= run.changes
    return parse_config(content, SETTINGS, "benchmarks.collapse")


def prepare(config: Config, folder: Path) -> Path:
    """Data and base model, where they are not yet."""
    if not folder.exists():
        with replacing(folder) as made:
            (made / "data").mkdir(parents=True)
            for split, problems in make_problems(config.data, config.seed).items():
                write_problems(made / "data", split, problems)
            build(config.model, config.data, config.seed, made / "base")
    return folder


def carry_out(run: Run, work: Path) -> dict[str, Any]:
    """Trains it, where that is not done yet; returns its row."""
    torch.set_num_threads(1)
    metrics, config = work / "curves" / run.name, configuration(run)
    if not Path(f"{metrics}.json").exists():
        metrics.parent.mkdir(parents=True, exist_ok=True)
        prepared = prepare(config, work / f"{run.seed}-leak-{run.leak}")
        folders = Folders(
            start=work / "models" / f"{run.seed}-{run.start}" if run.start else prepared / "base",
            reference=prepared / "base",
            data=prepared / "data",
            output=work / "models" / run.name,
            metrics=metrics,
            work=work / "running" / run.name,
        )
        runtime = load_runtime(Path("runtime.yaml")).model_copy(update={"threads": 1})
        train(config, runtime, folders, run.stage, make_algorithm(config.stage(run.stage)), [])
    return row(run, metrics)


def row(run: Run, metrics: Path) -> dict[str, Any]:
    """What became of it."""
    summary = read_json(Path(f"{metrics}.json"), made_by="this benchmark")
    curve = pd.read_csv(f"{metrics}_curve.csv")
    last = curve.tail(10)
    monitor = CollapseMonitor(run.name, samples_start=False)  # as it is now, also on runs from before
    for entry in curve.to_dict("records"):
        monitor.take(entry)
    told = [
        f"{one['sign']} {one['attempt']}, {one['since']} to {one['until'] or 'the end'}"
        for one in monitor.warnings
    ]
    return {
        "made_to": run.made_to or f"be sound ({run.stage})",
        "seed": run.seed,
        "accuracy_t1": summary["validation_accuracy_t1"],
        "accuracy_t2": summary["validation_accuracy_t2"],
        "changed_t2": round(last["changed_t2"].mean(), 3),
        "entropy_t1": round(last["entropy_t1"].mean(), 4),
        "entropy_t2": round(last["entropy_t2"].mean(), 4),
        "told": "; ".join(told),
    }


def main() -> None:
    """Runs all, writes the table and prints it."""
    parser = parser_of("benchmarks.collapse", __doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="models and curves")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="SEED")
    given = parser.parse_args()
    rows = []
    for run in runs(tuple(given.seeds)):
        rows.append(carry_out(run, given.work))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(markdown(list(table), table.fillna("").to_numpy()))
    if tuple(given.seeds) == SEEDS:
        table.to_csv("benchmarks/collapse.csv", index=False)


if __name__ == "__main__":
    main()
