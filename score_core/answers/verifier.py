"""The verifier: is an attempt right? Binary, and what accuracy counts; rewards are another matter."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from score_core.answers.answer_part import answer_part
from score_core.answers.extractors import EXTRACTORS, Extractor, boxes
from score_core.answers.matchers import MATCHERS, ExactMatcher
from score_core.config.reward import Reward, named

log = logging.getLogger(__name__)

# A gold answer without any mark of its own is taken whole if it looks like one: short, on one line.
MAX_BARE_GOLD_CHARACTERS = 200

# Why a gold answer cannot be used, and how its row is rescued.
NOT_FOUND, SEVERAL, NO_ANSWER, NOT_COMPARED = "not found", "several boxes", "no answer", "not compared"
RESCUES = {
    NOT_FOUND: "set reward.extractor to the form in which the gold answers stand, or data.columns.answer to "
    "a column that holds the bare answers",
    SEVERAL: "write the answer in one box, or the accepted answers as a list in the column of the answers",
    NO_ANSWER: "set reward.matcher to one that reads such answers (exact_match and em compare words), or "
    "write the answer as it reads them",
    NOT_COMPARED: "write the answer as LaTeX that math-verify parses, raise reward.seconds, or set "
    "reward.matcher: exact_match",
}


class Verdict(NamedTuple):
    """What the verifier finds in one attempt."""

    extracted: str | None  # the normalised answer; None if there is none that can be read
    correct: bool


class Reason(NamedTuple):
    """Why a gold answer cannot be used."""

    kind: str  # a key of `RESCUES`
    says: str


@dataclass(frozen=True)
class Gold:
    """A data set's gold answers to one problem, as far as attempts can be compared with them."""

    references: tuple[str, ...]  # normalised and distinct; empty if none can be read
    reasons: tuple[Reason, ...]  # why the others cannot, one each


class Verifier:
    """The extractor and the matcher that the section `reward` names.

    Raises:
        UserError: there is no extractor or matcher of that name.
    """

    def __init__(self, settings: Reward) -> None:
        self._settings = settings
        self._marker = settings.marker if settings.mode == "final" else None
        self._extract: Extractor = named(EXTRACTORS, settings.extractor, "reward.extractor", settings)
        # Gold answers need not stand after a marker.
        whole = settings.model_copy(update={"mode": "default"})
        self._extract_gold: Extractor = named(EXTRACTORS, settings.extractor, "reward.extractor", whole)
        self._nothing = f"no answer found by the extractor {settings.extractor}"
        self._matcher: ExactMatcher = named(MATCHERS, settings.matcher, "reward.matcher", settings)

    def verify_all(self, texts: Sequence[str], references: Sequence[tuple[str, ...]]) -> list[Verdict]:
        """Compares each attempt's text with its problem's references, in order.

        Right is what equals any of the references; where there is none, nothing is right.
        """
        normalise = self._matcher.normalise
        found = [self._read(text) for text in texts]
        pairs = [
            (at, gold, answer)
            for at, (answer, golds) in enumerate(zip(found, references, strict=True))
            if answer is not None
            for gold in map(normalise, golds)
            if gold is not None
        ]
        equal = self._matcher.equal_all([gold for _, gold, _ in pairs], [answer for _, _, answer in pairs])
        right = {at for (at, _, _), verdict in zip(pairs, equal, strict=True) if verdict}
        return [Verdict(answer, at in right) for at, answer in enumerate(found)]

    def golds(self, raw: Sequence[tuple[str, ...]]) -> list[Gold]:
        """Reads each problem's gold answers as attempts are read, and compares each with itself.

        Where the extractor's form is not in a gold answer, a short one is taken as it stands, unless it is
        a sentence to the matcher; if it may be one, a warning says so.
        """
        doubtful: list[str] = []
        found = [[self._read_gold(text, doubtful) for text in texts or ("",)] for texts in raw]
        if doubtful:
            log.warning(
                "%d of the gold answers may be sentences that hold the answer, such as %r: they are taken "
                "whole, so that only the same words equal them; where that is not meant, %s",
                len(doubtful),
                doubtful[0][:80],
                RESCUES[NOT_FOUND],
            )
        answers = list(dict.fromkeys(answer for row in found for answer, _ in row if answer is not None))
        readable = dict(zip(answers, self._matcher.readable_all(answers), strict=True))
        return [
            Gold(
                tuple(dict.fromkeys(answer for answer, _ in row if answer is not None and readable[answer])),
                tuple(reason for answer, reason in row if answer is None or not readable[answer]),
            )
            for row in found
        ]

    def same(self, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        """Whether normalised gold answers accept the same: each of either equals one of the other's."""
        if set(one) == set(other):
            return True
        pairs = list(product(one, other))
        equal = self._matcher.equal_all([gold for gold, _ in pairs], [gold for _, gold in pairs])
        matched = [pair for pair, verdict in zip(pairs, equal, strict=True) if verdict]
        return {gold for gold, _ in matched} == set(one) and {gold for _, gold in matched} == set(other)

    def _read(self, text: str) -> str | None:
        part = answer_part(text, self._marker)
        extracted = None if part is None else self._extract(part)
        return None if extracted is None else self._matcher.normalise(extracted)

    def _read_gold(self, text: str, doubtful: list[str]) -> tuple[str | None, Reason]:
        """The normalised answer, and what to say where it cannot be used; notes what may be a sentence."""
        part = text if self._matcher.whole_golds else answer_part(text, None) or ""
        extracted = part if self._matcher.whole_golds else self._extract_gold(part)
        bare = extracted is None
        if extracted is None:
            extracted = part.strip()
            if not extracted or len(extracted) > MAX_BARE_GOLD_CHARACTERS or "\n" in extracted:
                return None, Reason(NOT_FOUND, self._nothing)
        normalise = self._matcher.normalise
        boxed = () if self._matcher.whole_golds else boxes(part)
        if extracted in boxed and len(set(map(normalise, boxed))) > 1:
            return None, Reason(SEVERAL, f"{len(boxed)} boxes, of which none is marked as the answer")
        answer = normalise(extracted)
        if answer is None:
            says = f"{extracted[:80]!r} is no answer to the matcher {self._settings.matcher}"
            return None, Reason(NO_ANSWER, says)
        sentence = bare and self._matcher.is_sentence(answer)
        if sentence:
            return None, Reason(NOT_FOUND, f"{self._nothing} in {extracted[:80]!r}")
        if sentence is None:
            doubtful.append(extracted)
        says = f"{answer[:80]!r} {self._matcher.complaint} by the matcher {self._settings.matcher}"
        return answer, Reason(NOT_COMPARED, says)
