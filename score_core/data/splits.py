"""From a source's rows to the three splits the pipeline works on, with an account of every row.

Gold answers are read as attempts are. A row is quarantined, not dropped in silence, if none of its gold
answers can be; where only some of them cannot, the others stay and these are noted. Splits are
disjoint by content, and which problem goes where depends on its content alone, so adding rows moves no
other.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from score_core.answers.verifier import RESCUES as UNREADABLE
from score_core.answers.verifier import Verifier
from score_core.config.code_data import CodeData
from score_core.config.data import (
    AdditionData,
    ArchiveData,
    ArithmeticData,
    Data,
    GeneratedData,
    GymData,
    HubData,
)
from score_core.config.schema import Config
from score_core.data import gym_sets
from score_core.data.code_sets import read_code, read_repairs
from score_core.data.math_archive import read_math_archive
from score_core.data.sources import Row, Split, read_source
from score_core.embedded import addition, arithmetic
from score_core.errors import UserError
from score_core.problems import REPAIR, Problem, content_hash

log = logging.getLogger(__name__)

EMPTY = "empty problem"
RESCUES = {EMPTY: "write the problem, or set data.columns.problem to its column", **UNREADABLE}


@dataclass(frozen=True)
class Refused:
    """A row that is in no split, or a gold answer that its row has to do without, and why."""

    split: str
    row: int  # in the source's order, from 0
    id: str
    reason: str
    kind: str = ""  # a key of `RESCUES`, of what is quarantined or a dropped answer


@dataclass(frozen=True)
class Kept:
    """A problem, and where it comes from."""

    split: str
    row: int
    place: str  # what messages call the row
    hash: str
    problem: Problem


@dataclass(frozen=True)
class Prepared:
    """The splits, where they come from, and what became of what is in none of them."""

    splits: dict[str, list[Problem]]
    quarantined: list[Refused]
    duplicates: list[Refused]
    conflicting: list[Refused]  # rows of one problem with different gold answers
    dropped_answers: list[Refused]  # gold answers that cannot be read, of rows that have others
    revision: str | None

    @property
    def reasons(self) -> list[dict[str, str | int]]:
        """Each reason for quarantine: how many rows it took, an example, and how to rescue them."""
        by_kind = {kind: [row for row in self.quarantined if row.kind == kind] for kind in RESCUES}
        return [
            {
                "reason": kind,
                "rows": len(rows),
                "example": f"{rows[0].split} row {rows[0].row}: {rows[0].reason}",
                "rescue": RESCUES[kind],
            }
            for kind, rows in by_kind.items()
            if rows
        ]


def prepare(config: Config) -> Prepared:
    """Reads the source that `config.used_data` names and splits it.

    Raises:
        UserError: `config.reward` names an unknown extractor or matcher, the source is wrong (see
            `read_source`), a split is empty, two splits share an id or, in data of one's own, a problem, or
            two rows of one problem differ in their gold answers and `data.conflicting_answers` is not drop.
    """
    verifier = Verifier(config.reward)
    data = config.used_data
    sources, revision = _read(config, data, verifier)

    result = Prepared({}, [], [], [], [], revision)
    drop = not isinstance(data, GeneratedData) and data.conflicting_answers == "drop"
    kept = {name: _keep(verifier, name, split, result, drop) for name, split in sources.items()}
    if isinstance(data, ArchiveData | HubData):  # whose rows the user cannot mend
        _leave_to_the_test(kept, result)
    _refuse_shared([row for split in kept.values() for row in split])

    if not isinstance(data, GeneratedData):
        threshold = int(data.validation_share * 2**64)
        both = kept["train"]
        kept["train"] = [row for row in both if int(row.hash, 16) >= threshold]
        kept["validation"] = [row for row in both if int(row.hash, 16) < threshold]
        for name in ("train", "validation"):
            if not kept[name]:
                raise UserError(
                    f"{sources['train'].name}: of {len(both)} problems none is left for the split {name} "
                    f"at data.validation_share: {data.validation_share:g}; change the share or add problems."
                )
    for name, size in data.sizes.model_dump().items():
        if size is not None and size > len(kept[name]):
            log.info("data.sizes.%s asks for %d problems; there are %d", name, size, len(kept[name]))
        # Chosen and ordered by their hash: a smaller size is a prefix of a larger.
        result.splits[name] = [row.problem for row in sorted(kept[name], key=lambda row: row.hash)[:size]]
    if REPAIR in kept:
        most = data.sizes.test
        result.splits[REPAIR] = [row.problem for row in sorted(kept[REPAIR], key=lambda row: row.hash)[:most]]
    return result


def _read(config: Config, data: Data, verifier: Verifier) -> tuple[dict[str, Split], str | None]:
    """The splits of a source by their names, and its revision; generated ones have one for validation."""
    by = config.evaluation.by
    match data:
        case AdditionData():
            return _generated(addition.make_problems(data, config.seed)), None
        case ArithmeticData():
            return _generated(arithmetic.make_problems(data, config.seed)), None
        case GymData():
            scored = config.reward.matcher == "reasoning_gym"
            return _generated(gym_sets.make_problems(data, config.seed, scored)), None
        case CodeData():
            source, repairs = read_code(data), read_repairs(data, verifier)
        case ArchiveData():
            source, repairs = read_math_archive(data, by), None
        case _:
            source, repairs = read_source(data, by), None
    splits = {"train": source.train, "test": source.test}
    return splits | ({} if repairs is None else {REPAIR: repairs}), source.revision


def _generated(problems: dict[str, list[Problem]]) -> dict[str, Split]:
    return {
        name: Split(
            f"generated {name}", [Row(number, p.id, p.problem, p.references) for number, p in enumerate(made)]
        )
        for name, made in problems.items()
    }


def _keep(verifier: Verifier, name: str, split: Split, account: Prepared, drop: bool) -> list[Kept]:
    """The split's distinct problems with readable gold answers; notes what is left out in `account`.

    Args:
        drop: leaves out problems whose rows differ in their gold answers, which are refused otherwise.
    """
    readable: dict[str, list[Kept]] = {}  # by the problem
    quarantined = []
    golds = verifier.golds([row.answers for row in split.rows])
    for row, gold in zip(split.rows, golds, strict=True):
        content, place = content_hash(row.problem), f"{split.name} row {row.number}"
        identity = row.id or content
        if not row.problem.strip():
            quarantined.append(Refused(name, row.number, row.id or "", "the problem is empty", EMPTY))
        elif not gold.references:
            reasons = "; ".join(reason.says for reason in gold.reasons)
            quarantined.append(Refused(name, row.number, identity, reasons, gold.reasons[0].kind))
        else:
            problem = Problem(identity, row.problem, gold.references, row.labels)
            readable.setdefault(content, []).append(Kept(name, row.number, place, content, problem))
            account.dropped_answers.extend(
                Refused(name, row.number, identity, why.says, why.kind) for why in gold.reasons
            )
    account.quarantined.extend(quarantined)
    kept = []
    conflicts = []
    for first, *others in readable.values():
        golds_of = first.problem.references
        other = next((row for row in others if not verifier.same(golds_of, row.problem.references)), None)
        if other is not None:
            conflicts.append((first, other))
            reason = f"different gold answers in rows {first.row} and {other.row}, which hold one problem"
            account.conflicting.extend(_refused(row, reason) for row in (first, *others))
        else:
            kept.append(first)
            reason = f"the same problem as row {first.row}"
            account.duplicates.extend(_refused(row, reason) for row in others)
    if conflicts and not drop:
        raise _conflict(conflicts)
    first_reason = f"row {quarantined[0].row}: {quarantined[0].reason}" if quarantined else ""
    if conflicts:
        log.warning(
            "%s: %d problems left out, whose rows give different gold answers, see manifest.json",
            split.name,
            len(conflicts),
        )
    if not kept:
        found = f"found {len(split.rows)} rows"
        if first_reason:
            found += f", all quarantined ({first_reason}); check reward.extractor and data.columns"
        raise UserError(f"{split.name}: the split is empty; expected at least one problem, {found}.")
    if first_reason:
        counts = f"{len(quarantined)} of {len(split.rows)}"
        log.warning(
            "%s: %s rows quarantined, see quarantine_reasons in manifest.json for how to rescue them (%s)",
            split.name,
            counts,
            first_reason,
        )
    return kept


def _refused(row: Kept, reason: str) -> Refused:
    return Refused(row.split, row.row, row.problem.id, reason)


def _conflict(pairs: Sequence[tuple[Kept, Kept]]) -> UserError:
    one, two = pairs[0]
    more = f" (and {len(pairs) - 1} more such problems)" if len(pairs) > 1 else ""
    golds = f"{one.problem.answer[:80]!r} and {two.problem.answer[:80]!r}"
    return UserError(
        f"{one.place} and row {two.row}, counted from 0, hold the same problem (white space and case aside) "
        f"with different gold answers, {golds}{more}; keep the right one, write several accepted answers as "
        "a list in one row, or leave such problems out with data.conflicting_answers: drop."
    )


def _leave_to_the_test(kept: dict[str, list[Kept]], account: Prepared) -> None:
    """Leaves problems of the test split out of the training split."""
    tested = {row.hash: row for row in kept["test"]}
    shared = [row for row in kept["train"] if row.hash in tested]
    kept["train"] = [row for row in kept["train"] if row.hash not in tested]
    account.duplicates.extend(
        _refused(row, f"the same problem as {tested[row.hash].place}, which is tested on") for row in shared
    )
    if shared:
        log.warning(
            "%d problems left out of training, which the test split has, see manifest.json", len(shared)
        )


def _refuse_shared(rows: Sequence[Kept]) -> None:
    """Refuses a problem in two splits, and an id given twice."""
    shared = _twice(rows, lambda row: row.hash)
    for one, two in shared[:1]:
        more = f" (and {len(shared) - 1} more such pairs)" if len(shared) > 1 else ""
        raise UserError(
            f"{one.place} and {two.place}, counted from 0, hold the same problem{more}; expected {one.split} "
            f"and {two.split} to be disjoint; remove it from one of them."
        )
    for one, two in _twice(rows, lambda row: row.problem.id):
        raise UserError(
            f"{one.place} and {two.place}, counted from 0, have the same id {two.problem.id!r}; expected "
            "unique ids over all splits; set data.columns.id: null to make them from the problems."
        )


def _twice(rows: Sequence[Kept], key: Callable[[Kept], str]) -> list[tuple[Kept, Kept]]:
    """Each row whose key an earlier one has, after the first of those."""
    first: dict[str, Kept] = {}
    pairs = [(first.setdefault(key(row), row), row) for row in rows]
    return [(one, two) for one, two in pairs if one is not two]
