"""What the report reads: metrics, generations and training curves, checked against one another."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from score_core.errors import UserError
from score_core.files import read_json
from score_core.report.labels import TRANSITIONS, short_label, stage_label

CHANGES = ("delta", *TRANSITIONS)  # from attempt 1 to 2; with _t3 from 2 to 3, ...
VALIDATION_COLUMNS = ("step", "accuracy_t1", "accuracy_t2", *CHANGES)
CURVE_COLUMNS = ("step", "reward_t1", "reward_t2", "kl_t1", "kl_t2", "entropy_t1", "entropy_t2", "grad_norm")


@dataclass(frozen=True)
class Evaluated:
    """One model's evaluation on the test split.

    Attributes:
        name: what the command line calls it.
        metrics: the flat metrics file; shares in [0, 1].
        generations: one row a problem, sorted by id.
    """

    name: str
    metrics: dict[str, Any]
    generations: pd.DataFrame

    @property
    def label(self) -> str:
        return short_label(self.name)

    def interval(self, key: str) -> tuple[float, float]:
        """The 95 % interval of a metric."""
        low, high = self.metrics["ci95"][key]
        return low, high


@dataclass(frozen=True)
class Trained:
    """One training stage: its summary, a row a training step, and a row a validation (from step 0)."""

    name: str  # its section of params.yaml
    summary: dict[str, Any]
    curve: pd.DataFrame
    validation: pd.DataFrame

    @property
    def label(self) -> str:
        return stage_label(self.name)

    @property
    def took_off(self) -> bool:
        """False where the stage itself says that it has not; most stages say nothing."""
        return bool(self.summary.get("took_off", True))


@dataclass(frozen=True)
class Inputs:
    """Everything the report is made from.

    Attributes:
        models: at least one, all asked the same problems; the others are compared with the first, and
            the last is what came of it all. One alone is both.
        training: the stages in the order in which they trained; none where models were only evaluated.
    """

    models: tuple[Evaluated, ...]
    training: tuple[Trained, ...]

    @property
    def base(self) -> Evaluated:
        return self.models[0]

    @property
    def final(self) -> Evaluated:
        return self.models[-1]

    @property
    def compared(self) -> bool:
        return len(self.models) > 1

    @property
    def attempts(self) -> int:
        return int(self.base.metrics["attempts"])

    @property
    def problems(self) -> int:
        return int(self.base.metrics["n"])


def read_inputs(evaluated: Sequence[Sequence[str]], trained: Sequence[Sequence[str]] = ()) -> Inputs:
    """Reads the outputs of the stages before the report.

    Args:
        evaluated: for each model its name and the paths of its metrics and its generations.
        trained: for each stage of training its name and STEM, of STEM.json, STEM_curve.csv and
            STEM_validation.csv.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the others; the message names
            the stage that makes it.
    """
    for kind, names in (("model", [row[0] for row in evaluated]), ("stage", [row[0] for row in trained])):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{kind} {name}: given more than once; give each a name of its own.")
    models = [_read_evaluated(name, Path(metrics), Path(table)) for name, metrics, table in evaluated]
    base, (_, base_metrics, base_table) = models[0], evaluated[0]
    for other, (_, metrics, table) in zip(models, evaluated, strict=True):
        if other.metrics["attempts"] != base.metrics["attempts"]:
            raise UserError(
                f"{metrics}: {other.metrics['attempts']} attempts, but {base_metrics} has "
                f"{base.metrics['attempts']}; run `dvc repro report`, which evaluates what is out of date."
            )
        if list(other.generations["id"]) != list(base.generations["id"]):
            raise UserError(
                f"{table}: its problems are not those of {base_table}, "
                "so the models cannot be compared; run `dvc repro report`, which evaluates the stale one."
            )
    return Inputs(tuple(models), tuple(_read_trained(name, stem) for name, stem in trained))


def attempts_in(frame: pd.DataFrame, name: str) -> list[int]:
    """The attempts t for which `frame` has a column `<name>_t<t>`, ascending."""
    found = (re.fullmatch(rf"{name}_t(\d+)", column) for column in frame.columns)
    return sorted(int(match[1]) for match in found if match)


def _read_evaluated(name: str, path: Path, table: Path) -> Evaluated:
    made_by = f"evaluate_{name}"
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
    generations = _read_generations(table, attempts, remedy)
    for key, value in _counted(generations, attempts).items():
        if not math.isclose(metrics[key], value, abs_tol=1e-9):
            raise UserError(
                f"{path}: {key} is {metrics[key]:g}, but {table} gives {value:g}; the two are not of one "
                f"evaluation; run `dvc repro {made_by}`, which makes both."
            )
    return Evaluated(name, metrics, generations)


def _read_generations(path: Path, attempts: int, remedy: str) -> pd.DataFrame:
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


def _counted(generations: pd.DataFrame, attempts: int) -> dict[str, float]:
    """The metrics that the single answers give: the page shows both side by side, so they must agree."""
    first, second = generations["correct_t1"], generations["correct_t2"]
    counted = {f"accuracy_t{t}": generations[f"correct_t{t}"].mean() for t in range(1, attempts + 1)}
    return counted | {
        "n": float(len(generations)),
        "delta": counted["accuracy_t2"] - counted["accuracy_t1"],
        "delta_i_to_c": (~first & second).mean(),
        "delta_c_to_i": (first & ~second).mean(),
    }


def _read_trained(name: str, stem: str) -> Trained:
    made_by = f"train_{name}"
    path = Path(f"{stem}.json")
    remedy = f"run `dvc repro {made_by}`, which makes it"
    summary = read_json(path, made_by)
    for key in ("steps", "selected_step"):
        found = summary.get(key) if isinstance(summary, dict) else None
        if type(found) is not int:
            raise UserError(f"{path}: {key}: expected a whole number, found {found!r}; {remedy}.")
    return Trained(
        name,
        summary,
        _read_csv(Path(f"{stem}_curve.csv"), CURVE_COLUMNS, remedy),
        _read_csv(Path(f"{stem}_validation.csv"), VALIDATION_COLUMNS, remedy),
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
