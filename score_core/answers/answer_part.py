"""The part of an attempt in which its answer is looked for: no thinking, and no more than is read quickly."""

import re

MAX_CHARACTERS = 100_000  # some 30,000 tokens of answer, after the thinking
MAX_THINKING = 1_000_000  # in which thinking is looked for

_OPEN, _CLOSE = "<think>", "</think>"
_TAGS = re.compile(f"{_OPEN}|{_CLOSE}")


def without_thinking(text: str) -> str | None:
    """`text` without what stands between `<think>` and `</think>`; None where thinking was never closed.

    A closing tag alone ends thinking that the prompt opened.
    """
    if text.rfind(_OPEN) > text.rfind(_CLOSE):
        return None
    shown: list[str] = []
    end, thinks = 0, False
    text = text[-MAX_THINKING:]  # a tag that closes what was cut off is one of those alone
    for tag in _TAGS.finditer(text):
        if tag.group() == _OPEN:
            if not thinks:
                shown.append(text[end : tag.start()])
            thinks = True
        else:
            if not thinks:
                shown.clear()
            thinks, end = False, tag.end()
    return "\n".join([*shown, text[end:]]) if end else text


def after_marker(text: str, marker: str) -> str | None:
    """What follows the last `marker`; None where it is not there."""
    _, found, rest = text.rpartition(marker)
    return rest if found else None


def answer_part(text: str, marker: str | None) -> str | None:
    """What extractors read of an attempt: its end if it is long, and what follows the marker if there is one.

    Takes linear time.
    """
    shown = without_thinking(text)
    if shown is not None and marker is not None:
        shown = after_marker(shown, marker)
    return None if shown is None else shown[-MAX_CHARACTERS:]
