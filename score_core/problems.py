"""Problems as the pipeline prepares them: `data/prepared/{train,validation,test}.parquet`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from score_core.errors import UserError

SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "problem", "answer")


@dataclass(frozen=True)
class Problem:
    """One problem with its gold answer, both as text. `id` is unique over all splits."""

    id: str
    problem: str
    answer: str


def content_hash(problem: str) -> str:
    """64 mixed bits of a problem's text, as hex; white space and case do not count.

    It identifies a problem across splits and sources, and chooses its split.
    """
    folded = " ".join(problem.split()).casefold()
    return hashlib.sha256(folded.encode()).hexdigest()[:16]


def write_problems(folder: Path, split: str, problems: Sequence[Problem]) -> None:
    """Writes one split as parquet."""
    columns = {name: [getattr(problem, name) for problem in problems] for name in COLUMNS}
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    pq.write_table(pa.table(columns, schema=schema), folder / f"{split}.parquet")


def read_problems(folder: Path, split: str) -> list[Problem]:
    """Reads one split.

    Raises:
        UserError: the file is missing, lacks a column, is empty, or a row has no value.
    """
    path = folder / f"{split}.parquet"
    remedy = "run `dvc repro download_data`, which makes it"
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {remedy}.") from None
    except pa.ArrowInvalid:
        raise UserError(f"{path}: not a parquet file; {remedy}.") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(
            f"{path}: column {missing[0]} is missing; expected {', '.join(COLUMNS)}, "
            f"found {', '.join(table.column_names)}; {remedy}."
        )
    rows = table.select(list(COLUMNS)).to_pylist()
    if not rows:
        raise UserError(f"{path}: the split is empty; expected at least one problem; {remedy}.")
    for number, row in enumerate(rows):
        for name in COLUMNS:
            if not row[name]:
                raise UserError(f"{path}: row {number}: {name} is empty; {remedy}.")
    return [Problem(**row) for row in rows]
