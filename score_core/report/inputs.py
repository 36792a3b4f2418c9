"""What the report reads: metrics, generations and training curves, checked against one another."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from score_core.errors import UserError
from score_core.files import read_json

MODELS = {"base": "Base", "stage1": "Stage I", "final": "Final"}
STAGES = {"stage1": "Stage I", "stage2": "Stage II"}
CHANGES = ("delta", "delta_i_to_c", "delta_c_to_i")  # from attempt 1 to 2; with _t3 from 2 to 3, ...
VALIDATION_COLUMNS = ("step", "accuracy_t1", "accuracy_t2", *CHANGES)
CURVE_COLUMNS = ("step", "reward_t1", "reward_t2", "kl_t1", "kl_t2", "entropy_t1", "entropy_t2", "grad_norm")


@dataclass(frozen=True)
class Evaluated:
    """One model's evaluation on the test split.

    Attributes:
        name: `base`, `stage1` or `final`.
        label: the same for a reader.
        metrics: the flat metrics file; shares in [0, 1].
        generations: one row a problem, sorted by id.
    """

    name: str
    label: str
    metrics: dict[str, Any]
    generations: pd.DataFrame

    def interval(self, key: str) -> tuple[float, float]:
        """The 95 % interval of a metric."""
        low, high = self.metrics["ci95"][key]
        return low, high


@dataclass(frozen=True)
class Trained:
    """One training stage: its summary, a row a training step, and a row a validation (from step 0)."""

    name: str
    label: str
    summary: dict[str, Any]
    curve: pd.DataFrame
    validation: pd.DataFrame


@dataclass(frozen=True)
class Inputs:
    """Everything the report is made from."""

    base: Evaluated
    stage1: Evaluated
    final: Evaluated
    training: tuple[Trained, Trained]

    @property
    def models(self) -> tuple[Evaluated, Evaluated, Evaluated]:
        return self.base, self.stage1, self.final

    @property
    def attempts(self) -> int:
        return int(self.base.metrics["attempts"])

    @property
    def problems(self) -> int:
        return int(self.base.metrics["n"])


def read_inputs(root: Path) -> Inputs:
    """Reads the outputs of the stages before the report, below `root`.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the others; the message names
            the stage that makes it.
    """
    base, stage1, final = (_read_evaluated(root, name) for name in MODELS)
    for other in (stage1, final):
        if other.metrics["attempts"] != base.metrics["attempts"]:
            raise UserError(
                f"metrics/{other.name}.json: {other.metrics['attempts']} attempts, but metrics/base.json has "
                f"{base.metrics['attempts']}; run `dvc repro report`, which evaluates what is out of date."
            )
        if list(other.generations["id"]) != list(base.generations["id"]):
            raise UserError(
                f"generations/{other.name}.parquet: its problems are not those of generations/base.parquet, "
                "so the models cannot be compared; run `dvc repro report`, which evaluates the stale one."
            )
    first, second = (_read_trained(root, name) for name in STAGES)
    return Inputs(base, stage1, final, (first, second))


def attempts_in(frame: pd.DataFrame, name: str) -> list[int]:
    """The attempts t for which `frame` has a column `<name>_t<t>`, ascending."""
    found = (re.fullmatch(rf"{name}_t(\d+)", column) for column in frame.columns)
    return sorted(int(match[1]) for match in found if match)


def _read_evaluated(root: Path, name: str) -> Evaluated:
    made_by = f"evaluate_{name}"
    path = root / "metrics" / f"{name}.json"
    metrics = read_json(path, made_by)
    remedy = f"run `dvc repro {made_by}`, which makes it"
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: expected one object of metrics, found {type(metrics).__name__}; {remedy}.")
    attempts = metrics.get("attempts")
    if not isinstance(attempts, int) or attempts < 2:
        raise UserError(f"{path}: attempts: expected a whole number from 2, found {attempts!r}; {remedy}.")

    with_interval = [f"accuracy_t{t}" for t in range(1, attempts + 1)]
    with_interval += [*CHANGES, *(f"{key}_t{t}" for t in range(3, attempts + 1) for key in CHANGES)]
    plain = ["n"]
    for t in range(1, attempts + 1):
        plain += [f"{monitor}_t{t}" for monitor in ("reward", "unparsable", "truncated", "length")]
        if t > 1:
            plain += [f"changed_t{t}", f"edit_distance_ratio_t{t}"]
    for key in (*with_interval, *plain):
        if not _is_number(metrics.get(key)):
            raise UserError(f"{path}: {key}: expected a number, found {metrics.get(key)!r}; {remedy}.")
    intervals = metrics.get("ci95")
    for key in with_interval:
        interval = intervals.get(key) if isinstance(intervals, dict) else None
        if not (isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))):
            raise UserError(f"{path}: ci95.{key}: expected [low, high], found {interval!r}; {remedy}.")
    generations = _read_generations(root, name, attempts, made_by)
    _check_belong(path, metrics, generations, name, made_by)
    return Evaluated(name, MODELS[name], metrics, generations)


def _read_generations(root: Path, name: str, attempts: int, made_by: str) -> pd.DataFrame:
    path = root / "generations" / f"{name}.parquet"
    remedy = f"run `dvc repro {made_by}`, which makes it"
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {remedy}.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({_first_line(error)}); {remedy}.") from None
    columns = ["id", "problem", "answer"]
    for t in range(1, attempts + 1):
        columns += [f"text_t{t}", f"extracted_t{t}", f"correct_t{t}"]
    for column in columns:
        if column not in frame:
            raise UserError(
                f"{path}: column {column} is missing; expected {', '.join(columns)}, "
                f"found {', '.join(frame.columns)}; {remedy}."
            )
        if column.startswith("correct_t") and frame[column].dtype != bool:
            raise UserError(
                f"{path}: column {column}: expected true or false, found {frame[column].dtype}; {remedy}."
            )
    repeated = frame["id"][frame["id"].duplicated()]
    if len(repeated):
        raise UserError(f"{path}: id {repeated.iloc[0]!r} occurs twice; expected a row a problem; {remedy}.")
    return frame.sort_values("id", ignore_index=True)


def _check_belong(
    path: Path, metrics: dict[str, Any], generations: pd.DataFrame, name: str, made_by: str
) -> None:
    """Metrics and generations must be of one evaluation: the page shows both side by side."""
    wrong_then_right = ~generations["correct_t1"] & generations["correct_t2"]
    right_then_wrong = generations["correct_t1"] & ~generations["correct_t2"]
    counted = {"n": float(len(generations)), "delta_i_to_c": wrong_then_right.mean()}
    counted["delta_c_to_i"] = right_then_wrong.mean()
    for t in range(1, metrics["attempts"] + 1):
        counted[f"accuracy_t{t}"] = generations[f"correct_t{t}"].mean()
    counted["delta"] = counted["accuracy_t2"] - counted["accuracy_t1"]
    for key, value in counted.items():
        if not math.isclose(metrics[key], value, abs_tol=1e-9):
            raise UserError(
                f"{path}: {key} is {metrics[key]:g}, but generations/{name}.parquet gives {value:g}; the "
                f"two are not of one evaluation; run `dvc repro {made_by}`, which makes both."
            )


def _read_trained(root: Path, name: str) -> Trained:
    made_by = f"train_{name}"
    path = root / "metrics" / f"{made_by}.json"
    remedy = f"run `dvc repro {made_by}`, which makes it"
    summary = read_json(path, made_by)
    expected: dict[str, type] = {"steps": int, "selected_step": int}
    if name == "stage1":
        expected["took_off"] = bool
    for key, kind in expected.items():
        found = summary.get(key) if isinstance(summary, dict) else None
        if type(found) is not kind:
            raise UserError(f"{path}: {key}: expected {kind.__name__}, found {found!r}; {remedy}.")
    return Trained(
        name,
        STAGES[name],
        summary,
        _read_csv(root / "metrics" / f"{made_by}_curve.csv", CURVE_COLUMNS, remedy),
        _read_csv(root / "metrics" / f"{made_by}_validation.csv", VALIDATION_COLUMNS, remedy),
    )


def _read_csv(path: Path, columns: tuple[str, ...], remedy: str) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {remedy}.") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable CSV file ({_first_line(error)}); {remedy}.") from None
    for column in columns:
        if column not in frame:
            raise UserError(
                f"{path}: column {column} is missing; found {', '.join(map(str, frame.columns))}; {remedy}."
            )
        if not pd.api.types.is_numeric_dtype(frame[column]):
            raise UserError(f"{path}: column {column}: expected numbers, found text; {remedy}.")
    if frame.empty:
        raise UserError(f"{path}: no rows; expected at least one; {remedy}.")
    return frame


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
