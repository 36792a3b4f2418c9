r"""Extractors: from the text of an attempt, or of a data set's gold answer, to the answer in it.

Each takes text without thinking and of limited length (`score_core/answers/answer_part.py`) and returns the
answer's text, or None where the form asked for is not there. Where an extractor knows several forms it
takes a tag before `####` or a box, these before the marker, and that before the last number; of one form it
takes the last.

Nothing here decides equality; that is `score_core/answers/matchers.py`. A new extractor is a function, or a
class made with the section `reward` if it needs settings, and a line in `EXTRACTORS`. All take linear time.
"""

import re
from collections.abc import Callable

from score_core.answers.answer_part import after_marker
from score_core.config.reward import Reward

Extractor = Callable[[str], str | None]

# A sign counts only where it cannot be a subtraction: `7-3` ends in 3, `= -3` in -3. A currency sign
# may stand between the sign and the digits. Only ASCII digits: `\d` would take any script's.
NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-+\u2212])?(?:\\?[$€£])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)"
)
# The same with what belongs to the number: 1/3 is not 3, and 5 cm^2 ends in 5.
_LAST_NUMBER = re.compile(
    r"\\[dt]?frac ?(?:\{[^{}]{1,40}\} ?\{[^{}]{1,40}\}|[0-9] ?[0-9])"
    rf"|(?<![\^_0-9])(?<![\^_][{{-])(?<![\^_]\{{-){NUMBER.pattern}"
    r"(?: ?/ ?[0-9]+(?:\.[0-9]+)?|[eE][-+]?[0-9]+|:[0-9]{2}"
    r"|(?: ?(?:\\times|\u00d7|\*) ?10)?\^\{?[-+]?[0-9]+\}?)?"
)
_BRACES = re.compile(r"\\(?:boxed|fbox) {0,3}\{|(?<!\\)[{}]|\\(?:boxed|fbox) {1,3}([^\s{}$]{1,100})")


def last_number(text: str) -> str | None:
    """The last number written in `text`, as it is written, its fraction or exponent included."""
    numbers = [found.group() for found in _LAST_NUMBER.finditer(text)]
    return numbers[-1] if numbers else None


def answer_tag(text: str) -> str | None:
    """What the last complete `<answer>…</answer>` pair holds; an empty pair gives an empty string."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if start >= 0 else None


def boxes(text: str) -> list[str]:
    r"""What each complete `\boxed{…}` (or `\fbox{…}`, or `\boxed 7`) holds, by where it begins."""
    return [text[start:end].strip() for start, end in _boxes(text)]


def boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{…}` holds, braces inside it included."""
    found = _boxes(text)
    return text[slice(*found[-1])].strip() if found else None


def _boxes(text: str) -> list[tuple[int, int]]:
    open_braces: list[int | None] = []  # for each, where its box's content starts; None: no box
    found = []
    for token in _BRACES.finditer(text):
        if token.group(1):
            found.append(token.span(1))
        elif token.group().endswith("{"):
            open_braces.append(token.end() if len(token.group()) > 1 else None)
        elif open_braces:
            start = open_braces.pop()
            if start is not None:
                found.append((start, token.start()))
    return sorted(found)


def hash_or_box(text: str) -> str | None:
    """The whole line behind the last `####`, or the last box, whichever comes last."""
    start = text.rfind("####")
    found = _boxes(text)
    if start < 0 or (found and found[-1][0] > start):
        return boxed(text)
    return _first_line(text[start + 4 :])


def sentence(text: str | None) -> str | None:
    """What the first line of `text` says, without the sentence's end; None where there is none."""
    line = _first_line(text or "")
    if line is None:
        return None
    return line.partition("I hope it is correct")[0].strip().lstrip(":").rstrip(". ").strip() or None


def _first_line(text: str) -> str | None:
    lines = text.lstrip().split("\n", 1)
    return lines[0].strip() or None


class Marker:
    """The rest of the line after the last `reward.marker`."""

    def __init__(self, settings: Reward) -> None:
        self._marker, self._is_cut = settings.marker, settings.mode == "final"

    def __call__(self, text: str) -> str | None:
        return sentence(text if self._is_cut else after_marker(text, self._marker))


class MathFinalAnswer(Marker):
    """The last answer tag, else the last boxed answer, else what follows `reward.marker`."""

    def __call__(self, text: str) -> str | None:
        return _first_found(text, answer_tag, boxed, super().__call__)


class Gsm8kHash(Marker):
    """The last answer tag, else the last `####` line or box, else the marker's line, else the last number."""

    def __call__(self, text: str) -> str | None:
        return _first_found(text, answer_tag, hash_or_box, self._marked, last_number)

    def _marked(self, text: str) -> str | None:
        return None if self._is_cut else super().__call__(text)


def _first_found(text: str, *extractors: Extractor) -> str | None:
    found = (extract(text) for extract in extractors)
    return next((answer for answer in found if answer is not None), None)


def code_block(text: str) -> str | None:
    """What the last block of Python in ``` fences holds; one that is not closed ends with the text."""
    for block in reversed(text.split("```")[1::2]):
        tag, line, code = block.partition("\n")
        if line and tag.strip().lower() in ("", "python", "python3", "py"):
            return code
    return None


EXTRACTORS: dict[str, Extractor | Callable[[Reward], Extractor]] = {
    "boxed": boxed,
    "gsm8k_hash": Gsm8kHash,
    "answer_tag": answer_tag,
    "math_final_answer": MathFinalAnswer,
    "marker": Marker,
    "last_number": last_number,
    "code_block": code_block,
    "identity": str.strip,  # the whole text, without the white space around it
}
