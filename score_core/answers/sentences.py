r"""Whether a text says its answer in a sentence, rather than being it: nobody answers in the same words.

Only what no answer is written like counts, so that `May 5`, `3 hours and 20 minutes`, `x is even`, and
`all n such that n is 0 mod 4` stay answers.
"""

import re

from score_core.answers.leftovers import words_of

_NUMBER = r"(?:\\\$|[€£¥₹])? ?-?[0-9][0-9,]*(?:\.[0-9]+)?%?"
# A text that has its answer marked, or announces it.
_MARKED = re.compile(
    r"####|<<[^<>]*=[^<>]*>>|</?answer>|\banswers? (?:is|are|was|equals)\b|\banswers?:|\w answers? ?=",
    re.IGNORECASE,
)
# A sum that is worked out, at the beginning or after a word: in 2x + 3/4 = 1 none is.
_WORKED_OUT = re.compile(
    rf"(?:^|[A-Za-z]{{2}} |[,;:(.] ?){_NUMBER}(?: ?(?:[-+*/x]|\\times|\\cdot) ?{_NUMBER})+"
    rf" ?= ?{_NUMBER}(?! ?(?:[A-Za-z](?![A-Za-z])|[\\^(]))"
)
# What follows these is no statement, but says which of something: the circle whose radius is 2.
_WHICH = re.compile(r"\b(?:that|which|whose|where|when|such|with|if|for)\b")
_STATED = (
    re.compile(
        r"(?:[Ss]o|[Tt]hus|[Hh]ence|[Tt]herefore|[Ss]ince|[Bb]ecause|[Ww]e|[Tt]here|[Ii]t),? [a-z0-9\\]"
    ),
    re.compile(r"(?:[Hh]e|[Ss]he|[Tt]hey) [a-z]"),
    re.compile(
        rf"(?:[Tt]he|[Hh]is|[Hh]er|[Tt]heir|[Ii]ts)\b.* (?:is|are|was|were|equals?) (?:about )?{_NUMBER}\b"
    ),
    re.compile(
        r"[A-Z][a-z]+ (?:is|was|has|had|will|needs|needed|sold|sells|bought|paid|pays|spent|spends|earns"
        r"|earned|makes|made|gets|got|gave|ate|eats|won|saved|saves|takes|took|costs?)\b"
    ),
)
MANY_WORDS = 6


def states_answer(text: str) -> bool:
    """Whether a normalised text is a sentence, with numbers or a mark in it, that says what the answer is."""
    if _MARKED.search(text):
        return True
    if not re.search("[0-9]", text):
        return False
    stated = not _WHICH.search(text) and any(form.match(text) for form in _STATED)
    return stated or bool(words_of(text) and _WORKED_OUT.search(text))


def may_state_answer(text: str) -> bool:
    """Whether a normalised text has a number among so many words that it may well be a sentence."""
    return len(re.findall(r"(?<!\\)\b[A-Za-z]{2,}", text)) >= MANY_WORDS and bool(re.search("[0-9]", text))
