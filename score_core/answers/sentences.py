"""Whether a text says its answer in a sentence, rather than being it: nobody answers in the same words."""

import re

# A text that has its answer marked, or announces it.
_MARKED = re.compile(
    r"####|<<[^<>]*=[^<>]*>>|</?answer>|\banswers? (?:is|are|was|equals)\b|\banswers?:", re.IGNORECASE
)
MANY_WORDS = 4


def states_answer(text: str) -> bool:
    """Whether a text has its answer marked, or announces it."""
    return bool(_MARKED.search(text))


def may_state_answer(text: str) -> bool:
    """Whether a text has a number among so many words that it may well be a sentence."""
    return len(re.findall(r"(?<!\\)\b[A-Za-z]{2,}", text)) >= MANY_WORDS and bool(re.search("[0-9]", text))
