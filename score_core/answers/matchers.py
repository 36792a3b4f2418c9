r"""Matchers: whether an extracted answer equals the gold one.

A matcher first normalises both answers to text, then compares these; nothing equals an answer that it
cannot read, nor an empty one. What can be decided on text or as an exact fraction is; only the rest goes to
math-verify (`score_core/answers/math_equality.py`). A new matcher is a subclass of `ExactMatcher`, made with
the section `reward`, and a line in `MATCHERS`.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from score_core.answers.code_tests import CodeTests
from score_core.answers.extractors import NUMBER, boxed
from score_core.answers.math_equality import MathEquality
from score_core.config.reward import Reward

# Longer answers are unreadable: no task has them, and big-number arithmetic on them takes minutes.
MAX_CHARACTERS = 1000
REMEMBERED = 1 << 16  # normalised answers and compared pairs kept, of which training repeats many

_INTEGER = re.compile(r"([-+\u2212]?)[^0-9.]*([0-9,]+)(?:\.0+)?")
_DECIMAL = re.compile(r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)")
_RATIO = re.compile(
    r"([-+]?)(?:\\frac(?:\{([-+]?[0-9]+)\}\{([0-9]+)\}|([0-9])\s*([0-9]))|([0-9]+)\s*/\s*([0-9]+))"
)
_TYPESETTING = re.compile(r"\\[!,;:]|\\(?:left|right)(?![a-zA-Z])")
_WHOLE_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.)]")
_WORDS = re.compile(r"[^\W\d_][^\W\d_ .,'-]*(?:[ .,'-]+[^\W\d_]+)*\.?")


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


class IntegerMatcher(ExactMatcher):
    """The same integer, however it is written: `1,000`, `$1000`, `1000.0`, `1000 apples`.

    An answer that holds no number, several, or one that is not whole is unreadable.
    """

    def normalise(self, answer: str) -> str | None:
        # The hot path of training: nearly every answer is plain digits. Digits stay text, since
        # `int` refuses long ones.
        if answer.isascii() and answer.isdigit():
            return answer.lstrip("0") or "0"
        return _integer(answer)


@lru_cache(maxsize=REMEMBERED)
def _integer(answer: str) -> str | None:
    numbers = NUMBER.findall(_untypeset(answer)) if len(answer) <= MAX_CHARACTERS else []
    whole = _INTEGER.fullmatch(numbers[0]) if len(numbers) == 1 else None
    if whole is None:
        return None
    digits = whole.group(2).replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if whole.group(1) in ("-", "\u2212") and digits != "0" else digits


class MathMatcher(ExactMatcher):
    r"""The same mathematical object: number, expression, equation, set, interval, matrix, or word.

    Two answers that cannot be shown equal within `reward.seconds` are not equal.
    """

    def __init__(self, settings: Reward) -> None:
        self._algebra = MathEquality(settings.seconds)
        self._compared: dict[tuple[str, str], bool] = {}

    def normalise(self, answer: str) -> str | None:
        return _mathematics(answer)

    def equal_all(self, golds: Sequence[str], answers: Sequence[str]) -> list[bool]:
        pairs = list(zip(golds, answers, strict=True))
        if len(self._compared) > REMEMBERED:
            self._compared.clear()
        fresh = {pair: _equal_as_written(*pair) for pair in pairs if pair not in self._compared}
        decided = {pair: verdict for pair, verdict in fresh.items() if verdict is not None}
        self._compared |= decided | self._ask([pair for pair in fresh if pair not in decided])
        return [self._compared[pair] for pair in pairs]

    def readable_all(self, golds: Sequence[str]) -> list[bool]:
        # Equality as written would hold for any nonsense, so everything but numbers and words is
        # asked of the algebra.
        unclear = {(gold, gold) for gold in golds if _value(gold) is None and not _WORDS.fullmatch(gold)}
        verdicts = self._ask(sorted(unclear))
        return [verdicts.get((gold, gold), True) for gold in golds]

    def _ask(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        return dict(zip(pairs, self._algebra.equal_all(pairs), strict=True))


@lru_cache(maxsize=REMEMBERED)
def _mathematics(answer: str) -> str | None:
    if len(answer) > MAX_CHARACTERS:
        return None
    inner = boxed(answer)
    text = _untypeset(answer if inner is None else inner)
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text).replace("\u2212", "-")
    text = " ".join(text.split())
    previous = None
    while text != previous:  # wrappings come in any order: $\text{(C)}.$
        previous = text
        text = _unwrap(text)
    readable = any(c.isalnum() for c in text) and text.count("{") == text.count("}")
    return text if readable else None


def _untypeset(text: str) -> str:
    r"""`text` without commands that only space it: `1{,}000` and `1\,000` become `1,000` and `1000`."""
    return _TYPESETTING.sub("", text.replace("{,}", ","))


def _unwrap(text: str) -> str:
    """One layer less of dollar signs, delimiters, text commands, full stops, percent signs."""
    text = text.strip().removesuffix(".").strip()
    for start, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**")):
        inner = text.removeprefix(start).removesuffix(end)
        if text == start + inner + end and inner and start not in inner:
            return inner
    # A currency or percent sign left over: $18 is 18, 20\% is 20 as data sets of mathematics mean it.
    text = re.sub(r"^([-+]?)\\?[$€£]\s*(?=[-+]?[.0-9])", r"\1", text)
    text = re.sub(r"(?<=[0-9])\s*\\?%$", "", text)
    for pattern in (_WHOLE_TEXT, _CHOICE):
        whole = pattern.fullmatch(text)
        if whole:
            return next(group for group in whole.groups() if group is not None)
    return text


@lru_cache(maxsize=REMEMBERED)
def _value(text: str) -> Fraction | None:
    """The exact value of a decimal number or of a ratio of integers; None of anything else."""
    if _DECIMAL.fullmatch(text):
        return Fraction(text.replace(",", "").removesuffix("."))
    ratio = _RATIO.fullmatch(text)
    if ratio is None:
        return None
    sign, *parts = ratio.groups()
    numerator, denominator = (int(part) for part in parts if part is not None)
    if denominator == 0:
        return None
    return Fraction(-numerator if sign == "-" else numerator, denominator)


def _equal_as_written(gold: str, answer: str) -> bool | None:
    """Equality where text or exact arithmetic decides it, else None."""
    if gold == answer:
        return True
    values = _value(gold), _value(answer)
    return None if None in values else values[0] == values[1]


MATCHERS: dict[str, type[ExactMatcher] | type[CodeTests]] = {
    "integer": IntegerMatcher,
    "math": MathMatcher,
    "exact": ExactMatcher,
    "code_tests": CodeTests,
}
