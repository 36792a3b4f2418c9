"""From a source's rows to the three splits the pipeline works on, with an account of every row.

Gold answers are read as attempts are. A row is quarantined, not dropped in silence, if none of its gold
answers can be; where only some of them cannot, the others stay and these are noted. Splits are
disjoint by content, and which problem goes where depends on its content alone, so adding rows moves no
other.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from score_core.answers.verifier import Verifier
from score_core.config.data import AdditionData
from score_core.config.schema import Config
from score_core.data.sources import Row, Split, read_source
from score_core.errors import UserError
from score_core.problems import SPLITS, Problem, content_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refused:
    """A row that is in no split, or a gold answer that its row has to do without, and why."""

    split: str
    row: int  # in the source's order, from 0
    id: str
    reason: str


@dataclass(frozen=True)
class Kept:
    """A problem, and the row it comes from."""

    row: int
    hash: str
    problem: Problem


@dataclass(frozen=True)
class Prepared:
    """The splits, where they come from, and what became of what is in none of them."""

    splits: dict[str, list[Problem]]
    quarantined: list[Refused]
    duplicates: list[Refused]
    dropped_answers: list[Refused]  # gold answers that cannot be read, of rows that have others
    revision: str | None


def prepare(config: Config) -> Prepared:
    """Reads the source that `config.used_data` names and splits it.

    Raises:
        UserError: `config.reward` names an unknown extractor or matcher, the source is wrong (see
            `read_source`), a split is empty, or two splits share a problem or an id.
    """
    verifier = Verifier(config.reward)
    data = config.used_data
    if isinstance(data, AdditionData):
        from score_core.embedded.addition import make_problems

        generated = make_problems(data, config.seed)
        revision = None
        sources = {name: _generated(name, generated[name]) for name in SPLITS}
    else:
        source = read_source(data)
        revision = source.revision
        sources = {"train": source.train, "test": source.test}

    result = Prepared({}, [], [], [], revision)
    kept = {name: _keep(verifier, name, split, result) for name, split in sources.items()}
    _refuse_shared(sources, kept)

    if not isinstance(data, AdditionData):
        threshold = int(data.validation_share * 2**64)
        rows = kept["train"]
        kept["train"] = [row for row in rows if int(row.hash, 16) >= threshold]
        kept["validation"] = [row for row in rows if int(row.hash, 16) < threshold]
        for name in ("train", "validation"):
            if not kept[name]:
                raise UserError(
                    f"{sources['train'].name}: of {len(rows)} problems none is left for the split {name} "
                    f"at data.validation_share: {data.validation_share:g}; change the share or add problems."
                )
    for name in SPLITS:
        result.splits[name] = _sized(name, kept[name], getattr(data.sizes, name))
    return result


def _generated(name: str, problems: Sequence[Problem]) -> Split:
    rows = [Row(at, problem.id, problem.problem, problem.references) for at, problem in enumerate(problems)]
    return Split(f"generated {name}", rows)


def _keep(verifier: Verifier, name: str, split: Split, account: Prepared) -> list[Kept]:
    """The split's distinct problems with readable gold answers; notes what is left out in `account`."""
    kept: dict[str, Kept] = {}
    quarantined = []
    golds = verifier.golds([row.answers for row in split.rows])
    for row, gold in zip(split.rows, golds, strict=True):
        content = content_hash(row.problem)
        number, identity = row.number, row.id or content
        if not row.problem:
            quarantined.append(Refused(name, number, row.id or "", "the problem is empty"))
        elif not gold.references:
            quarantined.append(Refused(name, number, identity, "; ".join(gold.reasons)))
        elif content in kept:
            reason = f"the same problem as row {kept[content].row}"
            account.duplicates.append(Refused(name, number, identity, reason))
        else:
            kept[content] = Kept(number, content, Problem(identity, row.problem, gold.references))
            account.dropped_answers.extend(Refused(name, number, identity, why) for why in gold.reasons)
    account.quarantined.extend(quarantined)
    first = quarantined[0] if quarantined else None
    if not kept:
        found = f"found {len(split.rows)} rows"
        if first:
            found += f", all quarantined (row {first.row}: {first.reason}); check reward.extractor and "
            found += "data.columns"
        raise UserError(f"{split.name}: the split is empty; expected at least one problem, {found}.")
    if first:
        log.warning(
            "%s: %d of %d rows quarantined, see manifest.json (row %d: %s)",
            split.name,
            len(quarantined),
            len(split.rows),
            first.row,
            first.reason,
        )
    return list(kept.values())


def _refuse_shared(sources: dict[str, Split], kept: dict[str, list[Kept]]) -> None:
    """Refuses a problem in two splits, and an id given twice."""
    by_hash: dict[str, tuple[str, Kept]] = {}
    shared = []
    for name, rows in kept.items():
        for row in rows:
            other, first = by_hash.setdefault(row.hash, (name, row))
            if other != name:
                shared.append((other, first.row, name, row.row))
    if shared:
        one, row_one, two, row_two = shared[0]
        more = f" (and {len(shared) - 1} more such pairs)" if len(shared) > 1 else ""
        raise UserError(
            f"{sources[one].name} row {row_one} and {sources[two].name} row {row_two}, counted from 0, hold "
            f"the same problem{more}; expected {one} and {two} to be disjoint; remove it from one of them."
        )
    by_id: dict[str, tuple[str, Kept]] = {}
    for name, rows in kept.items():
        for row in rows:
            other, first = by_id.setdefault(row.problem.id, (name, row))
            if first is not row:
                raise UserError(
                    f"{sources[other].name} row {first.row} and {sources[name].name} row {row.row}, counted "
                    f"from 0, have the same id {row.problem.id!r}; expected unique ids over all splits; set "
                    "data.columns.id: null to make them from the problems."
                )


def _sized(name: str, rows: list[Kept], size: int | None) -> list[Problem]:
    """At most `size` problems, chosen and ordered by their hash: a smaller size is a prefix of a larger."""
    if size is not None and size > len(rows):
        log.info("data.sizes.%s asks for %d problems; there are %d", name, size, len(rows))
    return [row.problem for row in sorted(rows, key=lambda row: row.hash)[:size]]
