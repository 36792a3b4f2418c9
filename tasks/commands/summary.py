"""The table that `make repro` ends with: `python -m tasks.commands.summary`.

Reads the metrics of every evaluation in dvc.yaml; percent, with 95 % intervals.
"""

import sys
from typing import Any

from score_core.errors import refusing
from score_core.files import read_json
from score_core.report.labels import TRANSITIONS, model_label
from tasks.runner.exits import exit_code
from tasks.runner.pipeline import outputs_of, stages_of


def table(metrics: dict[str, dict[str, Any]]) -> str:
    """One line a model, one column a metric that all of them have.

    Args:
        metrics: the contents of metrics/*.json by the model's name.
    """
    import pandas as pd

    attempts = min(model["attempts"] for model in metrics.values())
    columns = {f"accuracy_t{t}": f"attempt {t}" for t in range(1, attempts + 1)}
    columns |= {"delta": "change", **TRANSITIONS} if attempts == 2 else {"delta": "change 1 → 2"}
    rows = [{label: _percent(model, key) for key, label in columns.items()} for model in metrics.values()]
    return pd.DataFrame(rows, index=[model_label(name) for name in metrics]).to_string()


def _percent(model: dict[str, Any], key: str) -> str:
    values = (model[key], *model["ci95"].get(key, ()))
    value, *interval = (f"{100 * share:{'+' if key == 'delta' else ''}.1f}" for share in values)
    return f"{value} [{', '.join(interval)}]" if interval else value


def print_summary() -> None:
    """Prints the table, and where the report is."""
    evaluated = {file: stage for stage in stages_of("evaluate") for file in outputs_of(stage, "metrics")}
    metrics = {file.stem: read_json(file, made_by=stage) for file, stage in evaluated.items()}
    with refusing(f"{', '.join(map(str, evaluated))}: no metrics", "run `dvc repro`, which makes them"):
        count = min(model["n"] for model in metrics.values())
        shown = table(metrics)
    print(f"\nPercent of {count} test problems answered right, with 95 % intervals\n")
    print(shown)
    page = outputs_of("report")[0]
    if page.exists():
        print(f"\nReport: {page.resolve()}")


if __name__ == "__main__":
    sys.exit(exit_code("summary", print_summary))
