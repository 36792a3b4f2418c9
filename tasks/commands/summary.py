"""The table that `make repro` ends with: `python -m tasks.commands.summary`.

Reads the metrics of every evaluation in dvc.yaml; percent, with 95 % intervals.
"""

import sys
from typing import Any

from score_core.files import read_json
from score_core.report.labels import TRANSITIONS, model_label
from tasks.runner.exits import exit_code
from tasks.runner.pipeline import outputs_of, stages_of


def table(metrics: dict[str, dict[str, Any]]) -> str:
    """One line a model, one column a metric that all of them have.

    Args:
        metrics: the contents of metrics/*.json by the model's name.
    """
    attempts = min(model["attempts"] for model in metrics.values())
    columns = {f"accuracy_t{t}": f"attempt {t}" for t in range(1, attempts + 1)}
    columns |= {"delta": "change", **TRANSITIONS} if attempts == 2 else {"delta": "change 1 → 2"}
    rows = [["", *columns.values()]]
    for name, model in metrics.items():
        cells = [_percent(model[key], model["ci95"].get(key), key == "delta") for key in columns]
        rows.append([model_label(name), *cells])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _percent(value: float, interval: list[float] | None, signed: bool) -> str:
    sign = "+" if signed else ""
    text = f"{100 * value:{sign}.1f}"
    if interval is None:
        return text
    low, high = (f"{100 * bound:{sign}.1f}" for bound in interval)
    return f"{text} [{low}, {high}]"


def main() -> int:
    """The command line; returns the exit code."""
    return exit_code("summary", _print_summary)


def _print_summary() -> None:
    evaluated = {file: stage for stage in stages_of("evaluate") for file in outputs_of(stage, "metrics")}
    metrics = {file.stem: read_json(file, made_by=stage) for file, stage in evaluated.items()}
    count = min(model["n"] for model in metrics.values())
    print(f"\nPercent of {count} test problems answered right, with 95 % intervals\n")
    print(table(metrics))
    page = outputs_of("report")[0]
    if page.exists():
        print(f"\nReport: {page.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
