"""Rows as a data source holds them: a hub data set, a folder saved by `datasets`, or plain files."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_core.config.data import Columns, HubData, LocalData
from score_core.errors import UserError
from score_core.hub import hub_errors, snapshot

if TYPE_CHECKING:
    from datasets import Dataset

READERS = {".parquet": "parquet", ".jsonl": "json", ".csv": "csv"}
MEND = "expected what its name says, with one row a problem; mend or export it again"


@dataclass(frozen=True)
class Row:
    """One row, its values as text; a missing value is an empty text, a missing list an empty one."""

    number: int  # in the source's order, from 0
    id: str | None
    problem: str
    answers: tuple[str, ...]  # the gold answers: one, or as many as a list holds


@dataclass(frozen=True)
class Split:
    """The rows of one split of a source."""

    name: str  # what messages call it: a file, or a data set and its split
    rows: list[Row]


@dataclass(frozen=True)
class Source:
    """The training and test splits of a source."""

    train: Split
    test: Split
    revision: str | None = None  # the commit of a hub data set


def read_source(data: HubData | LocalData) -> Source:
    """Reads both splits.

    Raises:
        UserError: the source cannot be fetched or read, lacks a split or a column, or a value is not
            text.
    """
    revision = None
    if isinstance(data, HubData):
        # Resolving the revision first makes both splits come from one commit, whatever is pushed meanwhile.
        revision = snapshot("dataset", data.path, data.revision, ["README.md"]).name
        read = partial(_from_hub, data, revision)
    elif not Path(data.path).is_dir():
        raise UserError(
            f"data.path: {data.path} is not a folder; expected one saved by `datasets`, or one with "
            f"{data.train_split}.jsonl and {data.test_split}.jsonl (or .parquet, .csv)."
        )
    elif any((Path(data.path) / name).exists() for name in ("dataset_dict.json", "state.json")):
        read = partial(_from_saved, data)
    else:
        read = partial(_from_file, data)

    def split(key: str) -> Split:
        where, rows = read(key, getattr(data, key))
        return Split(where, _rows(where, rows, data.columns))

    return Source(split("train_split"), split("test_split"), revision)


def _from_hub(data: HubData, commit: str, key: str, split: str) -> tuple[str, "Dataset"]:
    from datasets import load_dataset

    what = f"data: the split {split} of the hub data set {data.path} (name: {data.name})"
    hub = hub_errors("dataset", data.path, data.revision)
    with _readable(what, f"check data.name and data.{key}"), hub:
        return f"{data.path}:{split}", load_dataset(data.path, data.name, revision=commit, split=split)


def _from_saved(data: LocalData, key: str, split: str) -> tuple[str, "Dataset"]:
    from datasets import Dataset, load_from_disk

    with _readable(f"{data.path}:", MEND):
        saved = load_from_disk(data.path)
    if isinstance(saved, Dataset):
        raise UserError(
            f"{data.path}: holds one data set without splits; expected the splits {data.train_split} and "
            f"{data.test_split}; save a DatasetDict of both."
        )
    if split not in saved:
        raise UserError(f"{data.path}: no split {split}, found {', '.join(saved)}; set data.{key}.")
    return str(Path(data.path) / split), saved[split]


def _from_file(data: LocalData, key: str, split: str) -> tuple[str, "Dataset"]:
    from datasets import Dataset

    folder = Path(data.path)
    names = [f"{split}{suffix}" for suffix in READERS]
    paths = [folder / name for name in names if (folder / name).exists()]
    if len(paths) != 1:
        found = ", ".join(sorted(path.name for path in paths or folder.iterdir())) or "nothing"
        raise UserError(
            f"{folder}: expected one of {', '.join(names)} for data.{key}, "
            f"found {found}; keep one file a split, or set data.{key}."
        )
    (path,) = paths
    if path.stat().st_size == 0:
        return str(path), Dataset.from_dict({name: [] for name in data.columns.model_dump().values() if name})
    # A cache of its own: the shared one knows local files by name and time of change only.
    with tempfile.TemporaryDirectory() as cache, _readable(f"{path}:", MEND):
        read = getattr(Dataset, f"from_{READERS[path.suffix]}")
        return str(path), read(str(path), cache_dir=cache, keep_in_memory=True)


@contextmanager
def _readable(what: str, remedy: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:500]
        raise UserError(f"{what} cannot be read ({reason}); {remedy}.") from error


def _rows(where: str, rows: "Dataset", columns: Columns) -> list[Row]:
    named = columns.model_dump(exclude_none=True)
    for key, column in named.items():
        if column not in rows.column_names:
            raise UserError(
                f"{where}: column {column} is missing, found {', '.join(rows.column_names)}; "
                f"set data.columns.{key}."
            )

    def text(column: str, number: int, value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if not isinstance(value, str | int | float):
            raise UserError(
                f"{where}: row {number} (from 0), column {column}: expected text or a number, found a "
                f"{type(value).__name__}; name another column in data.columns, or flatten this one."
            )
        return str(value).strip()

    result = []
    for number, row in enumerate(rows.select_columns(list(named.values()))):
        identity = None if columns.id is None else text(columns.id, number, row[columns.id])
        problem, gold = text(columns.problem, number, row[columns.problem]), row[columns.answer]
        answers = [
            text(columns.answer, number, each) for each in (gold if isinstance(gold, list) else [gold])
        ]
        result.append(Row(number, identity, problem, tuple(answers)))
    return result
