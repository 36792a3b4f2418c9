"""Rows as a data source holds them: a hub data set, a folder saved by `datasets`, or plain files."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_core.config.data import Columns, FileData, HubData, LocalData
from score_core.errors import UserError
from score_core.hub import hub_errors, snapshot

if TYPE_CHECKING:
    from datasets import Dataset

READERS = {".parquet": "parquet", ".jsonl": "json", ".csv": "csv"}


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
    if isinstance(data, HubData):
        return _read_hub(data)
    folder = Path(data.path)
    if not folder.is_dir():
        raise UserError(
            f"data.path: {folder} is not a folder; expected one saved by `datasets`, or one with "
            f"{data.train_split}.jsonl and {data.test_split}.jsonl (or .parquet, .csv)."
        )
    saved = (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
    return _read_saved(data, folder) if saved else _read_files(data, folder)


def _read_hub(data: HubData) -> Source:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    # Resolving the revision first makes both splits come from one commit, whatever is pushed meanwhile.
    commit = snapshot("dataset", data.path, data.revision, ["README.md"]).name

    def split(name: str) -> Split:
        try:
            with hub_errors("dataset", data.path, data.revision):
                rows = load_dataset(data.path, data.name, revision=commit, split=name)
        except (ValueError, RuntimeError, DatasetsError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"data: the split {name} of the hub data set {data.path} (name: {data.name}) could not "
                f"be read ({reason}); check data.name, data.train_split and data.test_split."
            ) from error
        where = f"{data.path}:{name}"
        return Split(where, _rows(where, rows, data.columns))

    return Source(split(data.train_split), split(data.test_split), commit)


def _read_saved(data: FileData, folder: Path) -> Source:
    from datasets import Dataset, load_from_disk

    with _readable(folder):
        saved = load_from_disk(str(folder))
    if isinstance(saved, Dataset):
        raise UserError(
            f"{folder}: holds one data set without splits; expected the splits {data.train_split} and "
            f"{data.test_split}; save a DatasetDict of both."
        )

    def split(key: str, name: str) -> Split:
        if name not in saved:
            raise UserError(f"{folder}: no split {name}, found {', '.join(saved)}; set {key}.")
        where = str(folder / name)
        return Split(where, _rows(where, saved[name], data.columns))

    return Source(split("data.train_split", data.train_split), split("data.test_split", data.test_split))


def _read_files(data: FileData, folder: Path) -> Source:
    from datasets import Dataset

    def split(key: str, name: str) -> Split:
        paths = [folder / f"{name}{suffix}" for suffix in READERS if (folder / f"{name}{suffix}").exists()]
        if len(paths) != 1:
            found = ", ".join(sorted(path.name for path in paths or folder.iterdir())) or "nothing"
            raise UserError(
                f"{folder}: expected one of {', '.join(name + suffix for suffix in READERS)} for {key}, "
                f"found {found}; keep one file a split, or set {key}."
            )
        (path,) = paths
        if path.stat().st_size == 0:
            return Split(str(path), [])
        # A cache of its own: the shared one knows local files by name and time of change only.
        with tempfile.TemporaryDirectory() as cache, _readable(path):
            read = getattr(Dataset, f"from_{READERS[path.suffix]}")
            return Split(str(path), _rows(str(path), read(str(path), cache_dir=cache), data.columns))

    return Source(split("data.train_split", data.train_split), split("data.test_split", data.test_split))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, DatasetsError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        raise UserError(
            f"{path}: cannot be read ({reason}); expected what its name says, with one row a problem; "
            "mend or export it again."
        ) from error


def _rows(where: str, rows: "Dataset", columns: Columns) -> list[Row]:
    named = columns.model_dump(exclude_none=True)
    for key, column in named.items():
        if column not in rows.column_names:
            raise UserError(
                f"{where}: column {column} is missing, found {', '.join(rows.column_names)}; "
                f"set data.columns.{key}."
            )
    values = {key: list(rows[column]) for key, column in named.items()}
    return [
        Row(
            number=number,
            id=_text(where, named["id"], number, values["id"][number]) if "id" in values else None,
            problem=_text(where, named["problem"], number, problem),
            answers=tuple(
                _text(where, named["answer"], number, text)
                for text in (answer if isinstance(answer, list) else [answer])
            ),
        )
        for number, (problem, answer) in enumerate(zip(values["problem"], values["answer"], strict=True))
    ]


def _text(where: str, column: str, number: int, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float):
        raise UserError(
            f"{where}: row {number} (from 0), column {column}: expected text or a number, found a "
            f"{type(value).__name__}; name another column in data.columns, or flatten this one."
        )
    return str(value).strip()
