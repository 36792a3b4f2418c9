"""Problems as the pipeline prepares them: `data/prepared/{train,validation,test}.parquet`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from score_core.errors import UserError, refusing

SPLITS = ("train", "validation", "test")
REPAIR = "repair"  # a fourth one where there are wrong programs to repair (MBPP-R)
Labels = tuple[tuple[str, str], ...]  # (column, value), of columns that evaluation also reports by
SCHEMA = pa.schema([("id", pa.string()), ("problem", pa.string()), ("references", pa.list_(pa.string()))])
LABELS = pa.field("labels", pa.map_(pa.string(), pa.string()))  # one more column where problems have any


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: unique over all splits.
        problem: its text.
        references: the gold answers as text, one or several; an attempt is right if it equals any. A
            problem typed by a person has none.
        labels: what kind of problem it is, by the columns that `evaluation.by` names.
    """

    id: str
    problem: str
    references: tuple[str, ...]
    labels: Labels = ()

    @property
    def answer(self) -> str:
        """The gold answers as one text, to be read by people."""
        return " or ".join(self.references)


def content_hash(problem: str) -> str:
    """64 mixed bits of a problem's text, as hex; white space and case do not count.

    It identifies a problem across splits and sources, and chooses its split.
    """
    folded = " ".join(problem.split()).casefold()
    return hashlib.sha256(folded.encode()).hexdigest()[:16]


def write_problems(folder: Path, split: str, problems: Sequence[Problem]) -> None:
    """Writes one split as parquet."""
    schema = SCHEMA.append(LABELS) if any(problem.labels for problem in problems) else SCHEMA
    columns = {name: [getattr(problem, name) for problem in problems] for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), folder / f"{split}.parquet")


def read_problems(folder: Path, split: str) -> list[Problem]:
    """Reads one split.

    Raises:
        UserError: the file is missing, lacks a column or has one of another type, is empty, or a row
            has no value.
    """
    path = folder / f"{split}.parquet"
    remedy = "run `dvc repro download_data`, which makes it"
    if not path.exists():
        raise UserError(f"{path}: not found; {remedy}.")
    with refusing(f"{path}: not a parquet file", remedy):
        table = pq.read_table(path)
    for column in SCHEMA:
        if column.name not in table.column_names:
            raise UserError(
                f"{path}: column {column.name} is missing; expected {', '.join(SCHEMA.names)}, "
                f"found {', '.join(table.column_names)}; {remedy}."
            )
        found = table.schema.field(column.name).type
        if found != column.type:
            raise UserError(f"{path}: column {column.name}: expected {column.type}, found {found}; {remedy}.")
    with refusing(f"{path}: not what was written", remedy):
        rows = table.select(SCHEMA.names).to_pylist()
        labelled = LABELS.name in table.column_names
        labels = table[LABELS.name].to_pylist() if labelled else [()] * len(rows)
    if not rows:
        raise UserError(f"{path}: the split is empty; expected at least one problem; {remedy}.")
    for number, row in enumerate(rows):
        for name, value in row.items():
            if not value or not all(value):
                raise UserError(f"{path}: row {number}: {name} is empty; {remedy}.")
    return [
        Problem(row["id"], row["problem"], tuple(row["references"]), tuple(given or ()))
        for row, given in zip(rows, labels, strict=True)
    ]
