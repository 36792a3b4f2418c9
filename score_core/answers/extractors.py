"""Extractors: from the text of an attempt, or of a data set's gold answer, to the answer in it.

Each takes the whole text and returns the answer's text, or None where the form asked for is not
there. Nothing here decides equality; that is `score_core/answers/matchers.py`. A new extractor is a
function, or a class made with the section `reward` if it needs settings, and a line in `EXTRACTORS`.
"""

import re
from collections.abc import Callable

from score_core.config.reward import Reward

Extractor = Callable[[str], str | None]

# A sign counts only where it cannot be a subtraction: `7-3` ends in 3, `= -3` in -3. A currency sign
# may stand between the sign and the digits. Only ASCII digits: `\d` would take any script's.
NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-+\u2212])?(?:\\?[$€£])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)"
)
_HASH = re.compile(r"####\s*" + f"({NUMBER.pattern})")
_BRACES = re.compile(r"(?:\\boxed|\\fbox)\s*\{|(?<!\\)[{}]")
_CLOSING_WORDS = re.compile(r"\.?\s*I hope it is correct.*$")


def last_integer(text: str) -> str | None:
    """The last number written in `text`, as it is written; a fraction is not cut down to an integer."""
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else None


def answer_tag(text: str) -> str | None:
    """What the last complete `<answer>…</answer>` pair holds; an empty pair gives an empty string."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if start >= 0 else None


def gsm8k_hash(text: str) -> str | None:
    """The last answer tag, else the number of the last `#### N`, else the last number."""
    tagged = answer_tag(text)
    if tagged is not None:
        return tagged
    hashes = _HASH.findall(text)
    return hashes[-1] if hashes else last_integer(text)


def boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{…}` (or `\fbox{…}`) holds, braces inside it included."""
    open_braces: list[int | None] = []  # for each, where its box's content starts; None: no box
    last: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        if token.group().endswith("{"):
            open_braces.append(token.end() if len(token.group()) > 1 else None)
        elif open_braces:
            start = open_braces.pop()
            if start is not None and (last is None or start > last[0]):
                last = start, token.start()
    return text[slice(*last)].strip() if last else None


def after_marker(text: str, marker: str) -> str | None:
    """The rest of the line after the last `marker`, without the sentence's end."""
    _, found, rest = text.rpartition(marker)
    lines = rest.strip().splitlines() if found else []
    if not lines:
        return None
    return _CLOSING_WORDS.sub("", lines[0]).strip().lstrip(":").rstrip(".").strip()


def code_block(text: str) -> str | None:
    """What the last block of Python in ``` fences holds; one that is not closed ends with the text."""
    for block in reversed(text.split("```")[1::2]):
        tag, line, code = block.partition("\n")
        if line and tag.strip().lower() in ("", "python", "python3", "py"):
            return code
    return None


class MathFinalAnswer:
    """The last answer tag, else the last boxed answer, else what follows `reward.marker`."""

    def __init__(self, settings: Reward) -> None:
        self._marker = settings.marker

    def __call__(self, text: str) -> str | None:
        answers = (answer_tag(text), boxed(text), after_marker(text, self._marker))
        return next((answer for answer in answers if answer is not None), None)


EXTRACTORS: dict[str, Extractor | Callable[[Reward], Extractor]] = {
    "last_integer": last_integer,
    "gsm8k_hash": gsm8k_hash,
    "math_final_answer": MathFinalAnswer,
    "code_block": code_block,
    "identity": str.strip,  # the whole text, without the white space around it
}
