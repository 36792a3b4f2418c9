"""The verifier: is an attempt right? Binary, and what accuracy counts; rewards are another matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from score_core.answers.extractors import EXTRACTORS, Extractor
from score_core.answers.matchers import MATCHERS, ExactMatcher
from score_core.config.reward import Reward, named

# A gold answer without any mark of its own is taken whole if it looks like one: short, on one line.
MAX_BARE_GOLD_CHARACTERS = 200


class Verdict(NamedTuple):
    """What the verifier finds in one attempt."""

    extracted: str | None  # the normalised answer; None if there is none that can be read
    correct: bool


@dataclass(frozen=True)
class Gold:
    """A data set's gold answers to one problem, as far as attempts can be compared with them."""

    references: tuple[str, ...]  # normalised and distinct; empty if none can be read
    reasons: tuple[str, ...]  # why the others cannot, one each


class Verifier:
    """The extractor and the matcher that the section `reward` names.

    Raises:
        UserError: there is no extractor or matcher of that name.
    """

    def __init__(self, settings: Reward) -> None:
        self._settings = settings
        self._extract: Extractor = named(EXTRACTORS, settings.extractor, "reward.extractor", settings)
        self._matcher: ExactMatcher = named(MATCHERS, settings.matcher, "reward.matcher", settings)

    def verify_all(self, texts: Sequence[str], references: Sequence[tuple[str, ...]]) -> list[Verdict]:
        """Compares each attempt's text with its problem's references, in order.

        Right is what equals any of the references; where there is none, nothing is right.
        """
        normalise = self._matcher.normalise
        found = [None if text is None else normalise(text) for text in map(self._extract, texts)]
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

        Where the extractor's form is not in a gold answer, a short one is taken as it stands.
        """
        found = [[self._read_gold(text) for text in texts or ("",)] for texts in raw]
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

    def _read_gold(self, text: str) -> tuple[str | None, str]:
        """The normalised answer, and what to say where it cannot be used."""
        extracted = text if self._matcher.whole_golds else self._extract(text)
        if extracted is None:
            extracted = text.strip()
            if not extracted or len(extracted) > MAX_BARE_GOLD_CHARACTERS or "\n" in extracted:
                return None, f"no answer found by the extractor {self._settings.extractor}"
        answer = self._matcher.normalise(extracted)
        if answer is None:
            return None, f"{extracted[:80]!r} is no answer to the matcher {self._settings.matcher}"
        complaint = f"{answer[:80]!r} {self._matcher.complaint}"
        return answer, f"{complaint} by the matcher {self._settings.matcher}"
