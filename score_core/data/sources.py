"""Rows as a data source holds them: a hub data set, a folder saved by `datasets`, or plain files.

Values are read as text, exactly: what the file says where it holds text, integers digit by digit, floats in
their shortest decimal form, classes by their names. What cannot be had exactly is refused.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from score_core.config.data import Columns, HubData, LocalData
from score_core.data.plain_files import read_csv, read_jsonl
from score_core.errors import UserError, refusing
from score_core.hub import hub_errors, snapshot
from score_core.problems import Labels

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".parquet", ".jsonl", ".csv")
SAVED = ("dataset_dict.json", "state.json", "*/state.json")  # what shows that `datasets` saved a folder
MEND = "expected what its name says, with one row a problem; mend or export it again"


@dataclass(frozen=True)
class Row:
    """One row, its values as text, white space included; a missing value is an empty text."""

    number: int  # in the source's order, from 0
    id: str | None
    problem: str
    answers: tuple[str, ...]  # the gold answers: one, or as many as a list holds
    labels: Labels = ()  # what evaluation also reports by


@dataclass(frozen=True)
class Split:
    """The rows of one split of a source."""

    name: str  # what messages call it: a file, or a data set and its split
    rows: list[Row]


@dataclass(frozen=True)
class Table:
    """A split before its columns are chosen and made text.

    Attributes:
        where: what messages call it.
        columns: their names.
        rows: by column; a column may be missing in a row.
        floats: of the columns that hold floats, how these are stored, such as "float32".
        classes: of the columns that hold classes (`datasets.ClassLabel`), what their numbers stand for.
    """

    where: str
    columns: list[str]
    rows: Iterable[Mapping[str, Any]]
    floats: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The training and test splits of a source."""

    train: Split
    test: Split
    revision: str | None = None  # the commit of a hub data set, or those of two


def read_source(data: HubData | LocalData, by: tuple[str, ...] = ()) -> Source:
    """Reads both splits.

    Args:
        by: columns that rows keep as their labels.

    Raises:
        UserError: the source cannot be fetched or read, lacks a split or a column, or a value is not
            text.
    """
    revision = None
    if isinstance(data, HubData):
        # Resolving the revision first makes both splits come from one commit, whatever is pushed meanwhile.
        revision = snapshot("dataset", data.path, data.revision, ["README.md"]).name
        read = partial(_from_hub, data, by, revision)
    elif not Path(data.path).is_dir():
        raise UserError(
            f"data.path: {data.path} is not a folder; expected one saved by `datasets`, or one with "
            f"{data.train_split}.jsonl and {data.test_split}.jsonl (or .parquet, .csv)."
        )
    elif any(found for name in SAVED for found in Path(data.path).glob(name)):
        read = partial(_from_saved, data, by)
    else:
        read = partial(_from_file, data, by)

    def split(key: str) -> Split:
        table = read(key, getattr(data, key))
        return Split(table.where, _rows(table, data.columns, by))

    train = split("train_split")
    if isinstance(data, HubData) and (other := data.test_set) is not None:
        commit = snapshot("dataset", other.path, other.revision, ["README.md"]).name
        read = partial(_from_hub, data.model_copy(update=dict(other)), by, commit)
        revision = f"train {revision}, test {commit}"
    return Source(train, split("test_split"), revision)


def _from_hub(data: HubData, by: tuple[str, ...], commit: str, key: str, split: str) -> Table:
    from datasets import ClassLabel, Features, Value, concatenate_datasets, load_dataset

    what = f"data: the split {split} of the hub data set {data.path} (name: {data.name})"
    hub = hub_errors("dataset", data.path, data.revision)
    load = partial(load_dataset, data.path, data.name, revision=commit, split=split)
    with _readable(what, f"check data.name and data.{key}"), hub:
        rows = load()
        if rows.info.builder_name == "csv":
            # Types were guessed; see plain_files.py for what that changes. Not those of classes, which the
            # data set's card declares.
            classes = [name for name, kind in rows.features.items() if isinstance(kind, ClassLabel)]
            text = Features({column: Value("string") for column in rows.column_names})
            plain = load(features=text, keep_default_na=False).remove_columns(classes)
            rows = concatenate_datasets([plain, rows.select_columns(classes)], axis=1) if classes else plain
    return _table(f"{data.path}:{split}", rows, data.columns, by)


def _from_saved(data: LocalData, by: tuple[str, ...], key: str, split: str) -> Table:
    from datasets import Dataset, load_from_disk

    folder = Path(data.path)
    apart = (folder / split / "state.json").exists() and not (folder / "dataset_dict.json").exists()
    with _readable(f"{folder / split if apart else folder}:", MEND):
        saved = load_from_disk(str(folder / split if apart else folder))
    if isinstance(saved, Dataset):
        if apart:
            return _table(str(folder / split), saved, data.columns, by)
        raise UserError(
            f"{folder}: holds one data set without splits; expected the splits {data.train_split} and "
            f"{data.test_split}; save a DatasetDict of both, or each split in {folder / split}."
        )
    if split not in saved:
        raise UserError(f"{folder}: no split {split}, found {', '.join(saved)}; set data.{key}.")
    return _table(str(folder / split), saved[split], data.columns, by)


def _from_file(data: LocalData, by: tuple[str, ...], key: str, split: str) -> Table:
    from datasets import Dataset

    folder = Path(data.path)
    names = [f"{split}{suffix}" for suffix in SUFFIXES]
    paths = [folder / name for name in names if (folder / name).exists()]
    if len(paths) != 1:
        found = ", ".join(sorted(path.name for path in paths or folder.iterdir())) or "nothing"
        raise UserError(
            f"{folder}: expected one of {', '.join(names)} for data.{key}, "
            f"found {found}; keep one file a split, or set data.{key}."
        )
    (path,) = paths
    with _readable(f"{path}:", MEND):
        if path.suffix != ".parquet" or path.stat().st_size == 0:
            plain = read_csv(path) if path.suffix == ".csv" else read_jsonl(path)
            return Table(str(path), list(dict.fromkeys(name for row in plain for name in row)), plain)
        # A cache of its own: the shared one knows local files by name and time of change only.
        with tempfile.TemporaryDirectory() as cache:
            rows = Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True)
    return _table(str(path), rows, data.columns, by)


def _table(where: str, rows: "Dataset", columns: Columns, by: tuple[str, ...]) -> Table:
    from datasets import ClassLabel

    # The element's type where a column holds lists.
    kinds = {name: getattr(kind, "feature", kind) for name, kind in rows.features.items()}
    floats = {name: kind.dtype for name, kind in kinds.items() if "float" in str(getattr(kind, "dtype", ""))}
    classes = {name: kind.names for name, kind in kinds.items() if isinstance(kind, ClassLabel)}
    wanted = [name for name in rows.column_names if name in (*columns.model_dump().values(), *by)]
    return Table(where, rows.column_names, rows.select_columns(wanted), floats, classes)


@contextmanager
def _readable(what: str, remedy: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    with refusing(f"{what} cannot be read", remedy):
        try:
            yield
        except DatasetsError as error:  # which says less than what it comes from
            raise (error.__cause__ or error) from None


def _rows(table: Table, columns: Columns, by: tuple[str, ...]) -> list[Row]:
    named = {f"data.columns.{key}": column for key, column in columns.model_dump(exclude_none=True).items()}
    for key, column in [*named.items(), *(("evaluation.by", column) for column in by)]:
        if table.columns and column not in table.columns:
            raise UserError(
                f"{table.where}: column {column} is missing, found {', '.join(table.columns)}; set {key}."
            )

    def text(column: str, value: Any) -> str:
        try:
            if column in table.classes and isinstance(value, int):
                value = _class_name(value, table.classes[column])
            return as_text(value, table.floats.get(column, "float64"))
        except ValueError as error:
            raise UserError(
                f"{table.where}: row {number} (from 0), column {column}: {error} (a hub's "
                "in a local copy), or name another column in data.columns."
            ) from None

    result = []
    for number, row in enumerate(table.rows):
        identity = None if columns.id is None else text(columns.id, row.get(columns.id))
        problem, gold = text(columns.problem, row.get(columns.problem)), row.get(columns.answer)
        answers = [text(columns.answer, each) for each in (gold if isinstance(gold, list) else [gold])]
        labels = labels_of({column: text(column, row.get(column)) for column in by}, by)
        result.append(Row(number, identity, problem, tuple(answers), labels))
    return result


def labels_of(columns: Mapping[str, str], by: tuple[str, ...]) -> Labels:
    """The values of the columns `by`; a dash where there is none."""
    return tuple((name, columns[name].strip() or "-") for name in by)


def _class_name(number: int, names: list[str]) -> str | None:
    if number == -1:  # `datasets` writes a missing class so
        return None
    if not 0 <= number < len(names):
        raise ValueError(f"{number} is none of its {len(names)} classes; store it as text")
    return names[number]


def as_text(value: Any, stored: str = "float64") -> str:
    """A value of a source as text: empty for a missing one, `true` and `false` as JSON writes them.

    Args:
        stored: how it is stored, if it is a float.

    Raises:
        ValueError: it is no text or number, or cannot be had exactly.
    """
    match value:
        case None:
            return ""
        case str():
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                raise ValueError(f"{value[:40]!a} holds half a character; write it as UTF-8")
            return value
        case bool():
            return json.dumps(value)
        case int():
            return str(value)
        case Decimal():
            return f"{value:f}"
        case float():
            if not math.isfinite(value):
                return ""
            if abs(value) >= (limit := 2 / np.finfo(stored).eps):
                raise ValueError(
                    f"{value:g} is stored as a {stored}, which holds not every integer from {limit:.0f} on; "
                    "store it as text or as an integer"
                )
            return np.format_float_positional(np.dtype(stored).type(value), trim="-")
    raise ValueError(f"expected text or a number, found a {type(value).__name__}; store it as text")
