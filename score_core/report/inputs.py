"""What the report reads: metrics, generations and training curves, checked against one another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from score_core.errors import UserError, refusing
from score_core.evaluation.metrics import attempts_in, summarise
from score_core.files import read_json
from score_core.report.labels import TRANSITIONS, short_label, stage_label

CHANGES = ("delta", *TRANSITIONS)  # from attempt 1 to 2; with _t3 from 2 to 3, ...

# What a key or a column has to be: its name in messages, and whether a value, or a column's type, is that.
Expected = tuple[str, Callable[[Any], bool]]
WHOLE: Expected = "a whole number", lambda found: type(found) is int
NAME: Expected = "a name", lambda found: type(found) is str
TRUTH: Expected = "true or false", lambda found: type(found) is bool
COLUMN: Expected = "a column", lambda found: found is not None
NUMBERS: Expected = "a column of numbers", pd.api.types.is_numeric_dtype
JUDGEMENTS: Expected = "a column of true and false", lambda found: found == np.bool_

SAMPLED_BY = {"engine": NAME, "reproducible": TRUTH}
WARNINGS: Expected = (
    "warnings, each with what is said",
    lambda found: found is None or (type(found) is list and all(map(_is_warning, found))),
)
SUMMARY = dict.fromkeys(("steps", "selected_step"), WHOLE) | SAMPLED_BY | {"warnings": WARNINGS}
# The other columns are what the algorithm has to tell: a supervised one may know of no reward and no KL.
TABLES = {"curve": ("step",), "validation": ("step", "accuracy_t1", "accuracy_t2", *CHANGES)}
PROBLEM = dict.fromkeys(("id", "problem", "answer"), COLUMN)
ATTEMPT = {"text": COLUMN, "extracted": COLUMN, "correct": JUDGEMENTS, "reward": NUMBERS}
ATTEMPT |= {"tokens": NUMBERS, "truncated": NUMBERS}


@dataclass(frozen=True)
class Evaluated:
    """One model's evaluation on the test split.

    Attributes:
        name: what the command line calls it.
        metrics: the flat metrics file; shares in [0, 1].
        generations: one row a dialogue, sorted by id and sample.
    """

    name: str
    metrics: dict[str, Any]
    generations: pd.DataFrame

    @property
    def label(self) -> str:
        return short_label(self.name)

    def interval(self, key: str) -> tuple[float, float]:
        """The 95 % interval of a metric."""
        return tuple(self.metrics["ci95"][key])


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

    @property
    def warnings(self) -> list[str]:
        """What the monitor of collapse (score_core/rl/collapse.py) has said while it trained."""
        return [warning["said"] for warning in self.summary.get("warnings") or []]


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
    def engines(self) -> dict[str, str]:
        """What sampled in each stage of training, and answered for each model, by their labels."""
        trained = {stage.label: stage.summary["engine"] for stage in self.training}
        return trained | {f"evaluation of {model.label}": model.metrics["engine"] for model in self.models}

    @property
    def reproducible(self) -> bool:
        """Whether all of that would give the same bits again."""
        made = [*(stage.summary for stage in self.training), *(model.metrics for model in self.models)]
        return all(one["reproducible"] for one in made)

    @property
    def attempts(self) -> int:
        return int(self.base.metrics["attempts"])

    @property
    def problems(self) -> int:
        return int(self.base.metrics["n"])

    @property
    def samples(self) -> int:
        """Dialogues a problem."""
        return int(self.base.metrics.get("samples", 1))


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
    for model, (_, _, table) in zip(models, evaluated, strict=True):
        attempts, ids = model.metrics["attempts"], list(model.generations["id"])
        if attempts != models[0].metrics["attempts"] or ids != list(models[0].generations["id"]):
            raise UserError(
                f"{table}: {attempts} attempts at {len(ids)} problems, not those of {evaluated[0][2]}, so "
                "the models cannot be compared; run `dvc repro report`, which evaluates the stale one."
            )
    return Inputs(tuple(models), tuple(_read_trained(name, stem) for name, stem in trained))


def _read_evaluated(name: str, path: Path, table: Path) -> Evaluated:
    made_by = f"evaluate_{name}"
    metrics, generations = read_json(path, made_by), _read_table(table, made_by)
    _check(path, metrics, {"attempts": WHOLE} | SAMPLED_BY, made_by)
    attempts = range(1, max(2, attempts_in(generations)) + 1)
    of_attempts = {f"{column}_t{t}": wanted for t in attempts for column, wanted in ATTEMPT.items()}
    _check(table, dict(generations.dtypes), PROBLEM | of_attempts, made_by)
    row = ["id", "sample"] if "sample" in generations else ["id"]
    repeated = generations["id"][generations.duplicated(row)]
    if len(repeated):
        raise _refusal(table, f"id {repeated.iloc[0]!r} occurs twice; expected a row a problem", made_by)
    # The page shows both side by side, so the metrics have to be what the single answers give.
    (found,), (counted,) = (
        pd.json_normalize(of).to_dict("records") for of in (metrics, summarise(generations))
    )
    for key, value in counted.items():
        if not _agree(found.get(key), value):
            wrong = f"{key}: expected {value}, which {table} gives, found {found.get(key)}"
            raise _refusal(path, f"{wrong}; the two are not of one evaluation", made_by)
    return Evaluated(name, metrics, generations.sort_values(row, ignore_index=True))


def _read_trained(name: str, stem: str) -> Trained:
    made_by, path = f"train_{name}", Path(f"{stem}.json")
    summary = read_json(path, made_by)
    _check(path, summary, SUMMARY, made_by)
    tables = {}
    for kind, columns in TABLES.items():
        path = Path(f"{stem}_{kind}.csv")
        tables[kind] = _read_table(path, made_by)
        _check(path, dict(tables[kind].dtypes), dict.fromkeys([*columns, *tables[kind]], NUMBERS), made_by)
    return Trained(name, summary, **tables)


def _read_table(path: Path, made_by: str) -> pd.DataFrame:
    if not path.exists():
        raise _refusal(path, "not found", made_by)
    with refusing(f"{path}: not a readable table", f"run `dvc repro {made_by}`, which makes it"):
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    if frame.empty:
        raise _refusal(path, "no rows; expected at least one", made_by)
    return frame


def _check(path: Path, content: Any, expected: Mapping[str, Expected], made_by: str) -> None:
    for key, (wanted, holds) in expected.items():
        value = content.get(key) if isinstance(content, dict) else None
        if not holds(value):
            shown = "nothing" if value is None else value
            raise _refusal(path, f"{key}: expected {wanted}, found {shown}", made_by)


def _is_warning(found: Any) -> bool:
    return type(found) is dict and type(found.get("said")) is str


def _refusal(path: Path, wrong: str, made_by: str) -> UserError:
    return UserError(f"{path}: {wrong}; run `dvc repro {made_by}`, which makes it.")


def _agree(found: Any, counted: float | list[float]) -> bool:
    try:
        return np.shape(found) == np.shape(counted) and np.allclose(found, counted, rtol=0, atol=1e-9)
    except (TypeError, ValueError):  # it is no number, or a list of something else
        return False
