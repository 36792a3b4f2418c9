r"""Matchers: whether an extracted answer equals the gold one.

A matcher first normalises both answers to text, then compares these; nothing equals an answer that it
cannot read, nor an empty one. A new matcher is a subclass of `ExactMatcher`, made with the section `reward`,
and a line in `MATCHERS`.
"""

import logging
import re
from collections.abc import Sequence
from functools import lru_cache

from score_core.answers.code_tests import CodeTests
from score_core.answers.extractors import NUMBER, boxed
from score_core.answers.gym_scorer import GymScorer
from score_core.answers.math_equality import MathEquality, Pair
from score_core.answers.mathematics import MAX_CHARACTERS, normalise
from score_core.answers.plain_numbers import read_number
from score_core.answers.questions import tokens
from score_core.answers.remembered import Remembered
from score_core.answers.sentences import may_state_answer, states_answer
from score_core.answers.structure import compare, has_words
from score_core.config.reward import Reward
from score_core.errors import UserError

log = logging.getLogger(__name__)

_INTEGER = re.compile(r"([-+\u2212]?)[^0-9.]*([0-9,]+)(?:\.0+)?")
_TYPESETTING = re.compile(r"\\[!,;:]|\\(?:left|right|text|mathrm|textbf|mathbf)(?![a-zA-Z])|\\(?=[$%()\[\]])")
# What makes another number of the one that is written, or takes it back.
_CHANGED = re.compile(
    r"[\\^<>]|[0-9]!|[0-9] ?/|/ ?[0-9]|[a-z)] ?[*+] ?[0-9]|[0-9] ?[*+] ?[a-z(]|[a-z]_"
    r"|[0-9][abcdefijknopqrtuvwxyz\u03b1-\u03c9](?![a-z])|n't\b|\b(?:not|wrong|incorrect|false|or|either|neither|half|third"
    r"|quarter|dozen|hundred|thousand|million|billion|trillion)\b",
    re.IGNORECASE,
)


class ExactMatcher:
    """Reads answers and compares them: the same text, where only the amount of white space does not count.

    Attributes:
        whole_golds: gold answers are no attempts' texts, and are taken without the extractor.
        complaint: what is said of a gold answer that `readable_all` refuses.
    """

    whole_golds = False
    complaint = "cannot be compared"

    def __init__(self, settings: Reward) -> None:
        """Takes no settings."""

    def normalise(self, answer: str) -> str | None:
        """The answer as text to compare; None if it is empty or cannot be read. Idempotent."""
        return " ".join(answer.split()) or None

    def equal_all(self, golds: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Whether each normalised answer equals its normalised gold answer."""
        return [gold == answer for gold, answer in zip(golds, answers, strict=True)]

    def readable_all(self, golds: Sequence[str]) -> list[bool]:
        """Whether each normalised gold answer can be read to the end, so that others may equal it."""
        return [True] * len(golds)

    def is_sentence(self, gold: str) -> bool | None:
        """Whether a normalised gold answer is a sentence that no attempt can equal; None if it may be one."""
        return False


class WordsMatcher(ExactMatcher):
    """`em`: the same words; case, punctuation and articles do not count."""

    def normalise(self, answer: str) -> str | None:
        return " ".join(tokens(answer)) or None


class ContainedMatcher(WordsMatcher):
    """`in_acc`: the gold answer's words stand in the answer, one after another. It rewards saying much."""

    def equal_all(self, golds: Sequence[str], answers: Sequence[str]) -> list[bool]:
        return [f" {gold} " in f" {answer} " for gold, answer in zip(golds, answers, strict=True)]


class IntegerMatcher(ExactMatcher):
    """The same integer, however it is written: `1,000`, `$1000`, `1000.0`, `1000 apples`, `1e3`.

    An answer that holds no number, several, or one that is not whole is unreadable, and so is one with words
    or signs that make another number of it: `7 million`, `not 7`, `7!`.
    """

    def normalise(self, answer: str) -> str | None:
        if len(answer) > MAX_CHARACTERS:
            return None
        # The hot path of training: nearly every answer is plain digits. Digits stay text, since
        # `int` refuses long ones.
        if answer.isascii() and answer.isdigit():
            return answer.lstrip("0") or "0"
        return _integer(answer)


@lru_cache(maxsize=8192)
def _integer(answer: str) -> str | None:
    inner = boxed(answer)
    text = _TYPESETTING.sub("", (answer if inner is None else inner).replace("{,}", ",")).strip()
    numbers = NUMBER.findall(text)
    power = read_number(text) if len(numbers) == 2 and re.search("[eE^]", text) else None
    if power is not None and power.value.denominator == 1:
        return str(power.value)
    whole = _INTEGER.fullmatch(numbers[0]) if len(numbers) == 1 else None
    if whole is None or _CHANGED.search(text):
        return None
    digits = whole.group(2).replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if whole.group(1) in ("-", "\u2212") and digits != "0" else digits


class MathMatcher(ExactMatcher):
    r"""The same mathematical object: number, expression, equation, set, interval, matrix, or word.

    Two answers that cannot be shown equal within the time limit are not equal.
    """

    def __init__(self, settings: Reward) -> None:
        self._algebra = MathEquality(settings.seconds)
        self._remembered = Remembered()

    def normalise(self, answer: str) -> str | None:
        return normalise(answer)

    def equal_all(self, golds: Sequence[str], answers: Sequence[str]) -> list[bool]:
        pairs = list(zip(golds, answers, strict=True))
        verdicts: dict[Pair, bool] = {}
        unknown = []
        for pair in dict.fromkeys(pairs):
            verdict = self._remembered.get(pair)
            if verdict is None:
                verdict = pair[0] == pair[1] or compare(*pair, _not_asked)
            if verdict is None:
                unknown.append(pair)
            else:
                verdicts[pair] = verdict
        lost = 0
        for pair, asked in self._algebra.verdicts(unknown):
            verdicts[pair] = bool(asked)
            # What a lost helper did not say is no verdict on the pair.
            if asked is None:
                lost += 1
            else:
                self._remembered.keep([(pair, asked)])
        if lost:
            log.warning(
                "%d comparisons lost their helper process twice and count as not equal this time", lost
            )
        return [verdicts[pair] for pair in pairs]

    def readable_all(self, golds: Sequence[str]) -> list[bool]:
        # Equality as written would hold for any nonsense, so everything but numbers and words is
        # asked of the algebra.
        found: dict[Pair, bool | None] = {}
        for gold in golds:
            found[gold, gold] = has_words(gold) or compare(gold, gold, _not_asked)
        asked = dict(self._algebra.verdicts([pair for pair, verdict in found.items() if verdict is None]))
        for (gold, _), verdict in asked.items():
            if verdict is None:
                raise UserError(
                    f"the process that compares mathematics was ended or stopped twice at the gold answer "
                    f"{gold[:80]!r}, so nothing is known of it; see that memory suffices, and run again."
                )
        verdicts = found | asked
        return [verdicts[gold, gold] is True for gold in golds]

    def is_sentence(self, gold: str) -> bool | None:
        return states_answer(gold) or (None if may_state_answer(gold) else False)


def _not_asked(gold: str, answer: str) -> None:
    """The algebra, where only what takes none is to be decided."""


MATCHERS: dict[str, type[ExactMatcher] | type[CodeTests] | type[GymScorer]] = {
    "math_acc": MathMatcher,
    "integer": IntegerMatcher,
    "exact_match": ExactMatcher,
    "em": WordsMatcher,
    "in_acc": ContainedMatcher,
    "code_tests": CodeTests,
    "reasoning_gym": GymScorer,
}
