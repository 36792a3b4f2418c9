"""What computer algebra would not see in an answer: words, letter case, operations left to be done."""

import re

_COMMAND = re.compile(r"\\(?:begin|end) ?\{[a-z]*\}|\\[A-Za-z]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}|[^\W\d_a-zA-Z]")
_SHORT_WORDS = frozenset(
    (
        "is",
        "or",
        "and",
        "not",
        "no",
        "to",
        "the",
        "it",
        "if",
        "but",
        "all",
        "any",
        "per",
        "yes",
        "only",
        "for",
    )
)
_FUNCTIONS = frozenset(
    ("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh")  # the shorter ones are no words
)
# Operations that a value has behind it. One in the answer that is not in the gold answer is left to be done.
_UNDONE = tuple(
    re.compile(rf"\\(?:{names})(?![a-zA-Z])")
    for names in (
        "i?i?int|oint",
        "sum",
        "prod",
        "lim",
        "d?t?binom|choose",
        "det",
        "gcd|lcm|[bp]?mod",
        "max|min",
    )
)
_FACTORIAL = re.compile("!")
_ANGLE_FUNCTION = re.compile(r"(?<![a-zA-Z])(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?(?![a-zA-Z])")
_UNDONE_IN_NUMBERS = (_ANGLE_FUNCTION, re.compile(r"(?<![a-zA-Z])(?:ln|log|lg|exp)(?![a-zA-Z])"))
_VARIABLE = re.compile(
    r"(?<![\\A-Za-z])(?!e\b)[A-Za-z](?![A-Za-z])|\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega)"
)


def words_of(text: str) -> list[str]:
    """The words in `text` that are no product of variables."""
    found = _LETTERS.findall(_COMMAND.sub(" ", text))
    return [
        word
        for word in found
        if (len(word) > 3 or word.lower() in _SHORT_WORDS or not word.isascii()) and word not in _FUNCTIONS
    ]


def other_case(gold: str, answer: str) -> bool:
    """Whether a letter of the answer stands in the gold answer in the other case only."""
    known, given = ({c for c in _COMMAND.sub(" ", text) if c.isalpha()} for text in (gold, answer))
    return any(c.swapcase() in known for c in given - known)


def is_undone(gold: str, answer: str) -> bool:
    """Whether the answer has an operation, such as an integral, that the gold answer has carried out."""
    kinds = (*_UNDONE, _FACTORIAL, *(() if _VARIABLE.search(gold) else _UNDONE_IN_NUMBERS))
    return any(kind.search(answer) and not kind.search(gold) for kind in kinds)


def in_degrees(gold: str, answer: str) -> bool:
    """Whether one of two is an angle function of degrees and the other is not."""
    degrees = [r"^\circ" in text for text in (gold, answer)]
    return degrees[0] != degrees[1] and any(_ANGLE_FUNCTION.search(text) for text in (gold, answer))
