"""The numbers of a run beside those of the base model, of the run before and of the last accepted run.

    python -m flows.results accept     what metrics/final.json says becomes the accepted result; commit it

Accepted results are files of git, accepted/NAME.json, where NAME is the profile, with `-smoke` at toy size.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from flows.dag import ROOT, reason
from score_core.errors import UserError
from score_core.files import read_json, replacing, write_json

METRICS = Path("metrics")
ACCEPTED = Path("accepted")
LAST = Path(".runs/flow/last")
GATED = ("accuracy_t2", "delta")
# What the table shows, by its key in metrics/*.json.
SHOWN = {
    "accuracy_t1": "right at attempt 1",
    "accuracy_t2": "right at attempt 2",
    "delta": "change, attempt 1 to 2",
    "delta_i_to_c": "wrong → right",
    "delta_c_to_i": "right → wrong",
}

NOTHING = "none"

Metrics = dict[str, Any]


def result_name(root: Path = ROOT) -> str:
    """Of what params.yaml asks for: results are compared with those of the same name only.

    Raises:
        UserError: params.yaml names no profile.
    """
    path = root / "params.yaml"
    try:
        params = yaml.safe_load(path.read_text())
        return params["profile"] + ("-smoke" if params.get("smoke") else "")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"{path.name}: cannot be read, or names no profile ({error}); `git checkout {path.name}` "
            "restores the committed one."
        ) from None


def read_metrics(model: str, root: Path = ROOT) -> Metrics:
    """metrics/`model`.json, `model` being base, stage1 or final."""
    return read_json(root / METRICS / f"{model}.json", made_by=f"evaluate_{model}")


def read_accepted(name: str, root: Path = ROOT) -> Metrics | None:
    """The accepted result, if one was ever accepted."""
    return _read(root / ACCEPTED / f"{name}.json")


def read_last(name: str, root: Path = ROOT) -> Metrics | None:
    """What the flow's last complete run in this checkout measured, if there was one."""
    return _read(root / LAST / f"{name}.json")


def remember(name: str, final: Metrics, root: Path = ROOT) -> None:
    """Makes `final` the last run's."""
    write_json(root / LAST / f"{name}.json", final)


def accept(root: Path = ROOT) -> Path:
    """Makes the present result the accepted one.

    Returns:
        The file, which is to be committed.

    Raises:
        UserError: the metrics are not of what params.yaml and the code say now.
    """
    stale = reason("evaluate_final", root)
    if stale is not None:
        raise UserError(
            f"{METRICS}/final.json: not what params.yaml and the code give now ({stale}); run `make repro` "
            "or `make flow` first, then accept."
        )
    target = root / ACCEPTED / f"{result_name(root)}.json"
    with replacing(target) as temporary:
        shutil.copyfile(root / METRICS / "final.json", temporary)
    return target


def shortfalls(final: Metrics, accepted: Metrics, max_drop: float) -> list[str]:
    """Where a result is worse than the accepted one by more than `max_drop`, a share in [0, 1]."""
    found = []
    for key in GATED:
        drop = accepted[key] - final[key]
        if drop > max_drop + 1e-9:
            found.append(
                f"{key} is {percent(final[key])}, accepted was {percent(accepted[key])}: "
                f"{100 * drop:.2f} points less, more than the {100 * max_drop:g} allowed"
            )
    return found


def table(
    final: Metrics, base: Metrics, last: Metrics | None, accepted: Metrics | None
) -> list[dict[str, str]]:
    """One row a metric, in percent; in brackets how many points this run is above the other."""
    others = {"base model": base, "run before": last, "accepted run": accepted}
    rows = []
    for key, label in SHOWN.items():
        if key not in final:
            continue
        low, high = final["ci95"].get(key, (None, None))
        row = {
            "metric": label,
            "this run": percent(final[key]),
            "95 % interval": NOTHING if low is None else f"{percent(low)} to {percent(high)}",
        }
        for name, other in others.items():
            value = (other or {}).get(key)
            row[name] = NOTHING if value is None else f"{percent(value)} ({100 * (final[key] - value):+.2f})"
        rows.append(row)
    return rows


def percent(share: float) -> str:
    """A share in [0, 1] as percent with two places."""
    return f"{100 * share:.2f} %"


def _read(path: Path) -> Metrics | None:
    return json.loads(path.read_text()) if path.exists() else None


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.results", description=__doc__)
    parser.add_argument("what", choices=["accept"])
    parser.parse_args()
    try:
        path = accept()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = path.relative_to(ROOT)
    print(f"Accepted: {shown}\nCommit it, and runs are held against it: git add {shown} && git commit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
