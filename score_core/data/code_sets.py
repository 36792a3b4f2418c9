"""Sets of programming problems as rows, each row's tests as its gold answer; and the programs to repair."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from score_core.answers.code_tests import Suite, in_block
from score_core.answers.verifier import Verifier
from score_core.config.code_data import CodeData, CodeSet
from score_core.data.changed_programs import changed
from score_core.data.code_formats import FORMATS
from score_core.data.plain_files import read_jsonl
from score_core.data.sources import Row, Source, Split
from score_core.errors import UserError, refusing
from score_core.hub import hub_errors, snapshot

log = logging.getLogger(__name__)
MAX_CHANGES = 32  # of a solution that are tried before its problem is left out


def read_code(data: CodeData) -> Source:
    """Reads the sets to train and to test on; the source's revision names the commits of all sets on the hub.

    Raises:
        UserError: a set cannot be fetched or read, or a row is not in its format.
    """
    train = _read(data.train, "train", data.shown_tests)
    test = _read(data.test, "test", data.shown_tests)
    commits = {
        key: _commit(one.path, one.revision) for key, one in data.sets.items() if one.revision is not None
    }
    return Source(train, test, ", ".join(f"{key} {commit}" for key, commit in commits.items()) or None)


def read_repairs(data: CodeData, verifier: Verifier) -> Split | None:
    """The problems of `data.repair` with a wrong program each, which is in their tests; None without any.

    A problem is left out if no program for it is given, or the given one passes, or no change of its
    solution makes a test fail.

    Raises:
        UserError: as in `read_code`, or `data.wrong_programs` cannot be read.
    """
    if data.repair is None:
        return None
    split = _read(data.repair, "repair", data.shown_tests)
    given = None if data.wrong_programs is None else _given(Path(data.wrong_programs))
    suites = {row.number: Suite.of_text(row.answers[0]) for row in split.rows}
    untried = {
        row.number: list(islice(changed(suite.solution), MAX_CHANGES)) if given is None else given[row.id]
        for row in split.rows
        if (suite := suites[row.number]) is not None and (given is None or row.id in given)
    }
    repairs: list[Row] = []
    while untried := {at: programs for at, programs in untried.items() if programs}:
        tried = {at: programs.pop(0) for at, programs in untried.items()}
        golds = [split.rows[at].answers for at in tried]
        verdicts = verifier.verify_all([in_block(program) for program in tried.values()], golds)
        for (at, program), verdict in zip(tried.items(), verdicts, strict=True):
            suite = suites[at]
            if suite is not None and verdict.extracted is not None and not verdict.correct:
                repairs.append(replace(split.rows[at], answers=(replace(suite, wrong=program).as_text(),)))
                del untried[at]
    log.info("%s: wrong programs for %d of %d problems", split.name, len(repairs), len(split.rows))
    return Split(split.name, sorted(repairs, key=lambda row: row.number))


def _read(one: CodeSet, key: str, shown: int) -> Split:
    where = f"{one.path}:{one.split}"
    rows = []
    for number, columns in enumerate(_columns(one, key)):
        place = f"{where}: row {number} (from 0) is not in the format {one.format}"
        with refusing(place, f"set data.{key}.format, or mend the row"):
            identity, problem, tests = FORMATS[one.format](columns, shown)
        rows.append(Row(number, f"{one.format}/{identity}", problem, (tests.as_text(),)))
    return Split(where, rows)


def _columns(one: CodeSet, key: str) -> Iterable[Mapping[str, Any]]:
    if one.revision is not None:
        try:
            return _from_hub(one, key, one.revision)
        except UserError as error:  # which knows one set, and a source for local ones
            says = (
                str(error).replace("data.path:", f"data.{key}.path:").replace("data.rev", f"data.{key}.rev")
            )
            local = f"name its folder in data.{key}.path and set data.{key}.revision: null"
            raise UserError(says.replace("set data.source: local", local)) from error
    found: list[Mapping[str, Any]] = []
    for split in one.split.split("+"):
        paths = [Path(one.path) / f"{split}{suffix}" for suffix in (".jsonl", ".parquet")]
        there = [path for path in paths if path.exists()]
        if len(there) != 1:
            raise UserError(
                f"data.{key}.path: {one.path} has {len(there)} of {paths[0].name} and {paths[1].name}; "
                f"expected one; set data.{key}.split, or data.{key}.revision for a set on the hub."
            )
        with refusing(f"{there[0]} cannot be read", "export it again"):
            found += read_jsonl(there[0]) if there[0].suffix == ".jsonl" else _read_parquet(there[0])
    return found


def _commit(path: str, revision: str) -> str:
    """The commit that a revision of a hub data set stands for."""
    return snapshot("dataset", path, revision, ["README.md"]).name


def _from_hub(one: CodeSet, key: str, revision: str) -> list[Mapping[str, Any]]:
    from datasets import load_dataset

    commit = _commit(one.path, revision)
    what = f"data.{key}: the split {one.split} of the hub data set {one.path} (name: {one.name})"
    with (
        refusing(f"{what} cannot be read", f"check data.{key}.name and split"),
        hub_errors("dataset", one.path, revision),
    ):
        return list(load_dataset(one.path, one.name, revision=commit, split=one.split))


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _given(path: Path) -> dict[str | None, list[str]]:
    """The programs of a JSONL file by the ids of their problems, `mbpp/` before these or not."""
    programs: dict[str | None, list[str]] = {}
    with refusing(f"data.wrong_programs: {path} cannot be read", 'expected lines of {"id", "program"}'):
        for row in read_jsonl(path):
            identity = f"mbpp/{str(row['id']).removeprefix('mbpp/')}"
            programs.setdefault(identity, []).append(str(row["program"]))
    return programs
