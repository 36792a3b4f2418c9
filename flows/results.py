"""A run's metrics compared with the base model's, the previous run's and the accepted ones.

    python -m flows.results accept     makes the current metrics the accepted ones; commit them

Accepted results are files of git, accepted/NAME.json: NAME is the profile, with `-smoke` for a smoke run.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from flows.dag import ROOT, Stage, find_output, plan, read_stages, select
from score_core.errors import UserError, refusing
from score_core.files import read_json, replacing, write_json
from score_core.report.labels import MODELS, TRANSITIONS
from tasks.runner.exits import exit_code, parser_of

# The trained and the base model's metrics, wherever dvc.yaml has them.
FINAL, BASE = "final.json", "base.json"
ACCEPTED = Path("accepted")
FLOW = Path(".runs/flow")  # in a checkout: its flow's lock and last results
GATED = ("accuracy_t2", "delta")
# What the table shows, by its key in metrics/*.json.
SHOWN = {
    "accuracy_t1": "right at attempt 1",
    "accuracy_t2": "right at attempt 2",
    "delta": "change, attempt 1 to 2",
    **TRANSITIONS,
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


def read_metrics(file: str, stages: list[Stage], root: Path = ROOT) -> Metrics | None:
    """The metrics file of that name, FINAL or BASE; None if no stage among `stages` makes it."""
    found = find_output(stages, file)
    return read_json(root / found[0], made_by=found[1].name) if found else None


def read_warnings(stages: list[Stage], root: Path = ROOT) -> dict[str, list[str]]:
    """What the stages of training among `stages` said of collapse, by their names."""
    files = [
        (stage.name, root / path) for stage in stages for path in stage.outputs if path.suffix == ".json"
    ]
    found = {stage: (_read(file) or {}).get("warnings") for stage, file in files}
    return {stage: [warning["said"] for warning in told] for stage, told in found.items() if told}


def read_accepted(name: str, root: Path = ROOT) -> Metrics | None:
    """The accepted metrics, if any.

    Raises:
        UserError: what is compared with them is missing, or is no share.
    """
    file = ACCEPTED / f"{name}.json"
    accepted = _read(root / file)
    for key in GATED if accepted is not None else ():
        value = accepted.get(key) if isinstance(accepted, dict) else None
        if not isinstance(value, int | float) or not -1 <= value <= 1:  # nor NaN
            raise UserError(
                f"{file}: {key}: expected a share, e.g. 0.95, found {value}, and later runs are compared "
                f"with it; `git checkout {file}` restores it, `make accept` writes it anew."
            )
    return accepted


def read_last(name: str, root: Path = ROOT) -> Metrics | None:
    """The metrics of the last complete flow run in this checkout, if any."""
    return _read(root / FLOW / "last" / f"{name}.json")


def save_last(name: str, final: Metrics, root: Path = ROOT) -> None:
    """Makes `final` the metrics that `read_last` returns."""
    write_json(root / FLOW / "last" / f"{name}.json", final)


def accept(root: Path = ROOT) -> Path:
    """Makes the current metrics the accepted ones.

    Returns:
        The file, which is to be committed.

    Raises:
        UserError: the metrics are out of date, or dvc.yaml has none of that name.
    """
    stages = read_stages(root)
    found = find_output(stages, FINAL)
    if found is None:
        raise UserError(f"dvc.yaml: no stage has an output {FINAL}, the metrics that are accepted.")
    metrics, stage = found
    stale = [step for step in plan(select(stages, [stage.name]), root=root) if step.verdict == "stale"]
    if stale:
        why = "; ".join(f"{step.stage} is stale ({step.why})" for step in stale)
        raise UserError(f"{metrics}: out of date: {why}. Run `make repro` or `make flow` first, then accept.")
    target = root / ACCEPTED / f"{result_name(root)}.json"
    with replacing(target) as temporary:
        shutil.copyfile(root / metrics, temporary)
    return target


def check_max_drop(max_drop: float) -> None:
    """Raises UserError for what no drop would exceed."""
    if not 0 <= max_drop <= 1:
        raise UserError(f"max_drop: expected a share from 0 to 1, found {max_drop}; 0.02 is two points.")


def regressions(final: Metrics, accepted: Metrics, max_drop: float) -> list[str]:
    """Where metrics are worse than the accepted ones by more than `max_drop`, a share in [0, 1]."""
    found = []
    for key in GATED:
        drop = accepted[key] - final[key]
        if drop > max_drop + 1e-9:
            found.append(
                f"{key} is {percent(final[key])}, accepted {percent(accepted[key])}: "
                f"a drop of {100 * drop:.2f} points, allowed are {100 * max_drop:g}"
            )
    return found


def table(
    final: Metrics, base: Metrics | None, last: Metrics | None, accepted: Metrics | None
) -> list[dict[str, str]]:
    """One row per metric, in percent; in brackets the difference of this run to the other, in points."""
    others = {MODELS["base"]: base, "previous run": last, "accepted run": accepted}
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
    if not path.exists():
        return None
    with refusing(f"{path}: cannot be read as metrics", "remove it, and accept or run anew"):
        return dict(json.loads(path.read_text()))


def main() -> int:
    """The command line; returns the exit code."""
    parser = parser_of("flows.results", __doc__)
    parser.add_argument("what", choices=["accept"])
    parser.parse_args()
    return exit_code("accept", _print_accepted)


def _print_accepted() -> None:
    shown = accept().relative_to(ROOT)
    print(f"Accepted: {shown}\nCommit it, and later runs are compared with it: git add {shown} && git commit")


if __name__ == "__main__":
    sys.exit(main())
