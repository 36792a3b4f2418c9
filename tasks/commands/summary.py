"""The table that `make repro` ends with: `python -m tasks.commands.summary`.

Reads metrics/{base,stage1,final}.json; percent, with 95 % intervals.
"""

import sys
from pathlib import Path
from typing import Any

from score_core.errors import UserError
from score_core.files import read_json

METRICS = Path("metrics")
REPORT = Path("reports/index.html")
MODELS = {"base": "base model", "stage1": "after Stage I", "final": "after Stage II"}
TRANSITIONS = {"delta_i_to_c": "wrong → right", "delta_c_to_i": "right → wrong"}


def table(metrics: dict[str, dict[str, Any]]) -> str:
    """One line a model, one column a metric that all of them have.

    Args:
        metrics: the contents of metrics/*.json by model.
    """
    attempts = min(model["attempts"] for model in metrics.values())
    columns = {f"accuracy_t{t}": f"attempt {t}" for t in range(1, attempts + 1)}
    columns |= {"delta": "change", **TRANSITIONS} if attempts == 2 else {"delta": "change 1 → 2"}
    rows = [["", *columns.values()]]
    for name, model in metrics.items():
        cells = [_percent(model[key], model["ci95"].get(key), key == "delta") for key in columns]
        rows.append([MODELS[name], *cells])
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
    """Prints the table; returns the exit code."""
    try:
        metrics = {name: read_json(METRICS / f"{name}.json", made_by=f"evaluate_{name}") for name in MODELS}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    count = metrics["final"]["n"]
    print(f"\nPercent of {count} test problems answered right, with 95 % intervals\n")
    print(table(metrics))
    if REPORT.exists():
        print(f"\nReport: {REPORT.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
