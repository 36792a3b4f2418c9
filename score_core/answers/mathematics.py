r"""One way to write mathematics: the text of an answer without what only sets it in type.

`normalise` leaves what was answered as it is. What two answers have to do with each other is the matter of
`score_core/answers/structure.py`.
"""

import re
import unicodedata
from functools import lru_cache

# Longer answers are unreadable: no task has them, and big-number arithmetic on them takes minutes.
MAX_CHARACTERS = 1000

_CHARACTERS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": r"\times ",
        "⋅": r"\cdot ",
        "·": r"\cdot ",
        "÷": "/",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "∞": r"\infty ",
        "≈": "=",
        "π": r"\pi ",
        "θ": r"\theta ",
        "\u222a": r"\cup ",
        "±": r"\pm ",
        "∅": r"\emptyset ",
        "√": r"\sqrt ",
        "°": r"^\circ ",
        "…": "...",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
    }
)
# A dollar that is money, while the others, around formulas, are taken away.
_MONEY = "\u00a4"
_LONE_DOLLAR = re.compile(r"(?<!\$)\$(?=[ ]?[-+]?[.0-9])")
_COMMANDS = (
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])|(?<!\\)\\!"), ""),
    (re.compile(r"\\(?:quad|qquad|newline)(?![a-zA-Z])|(?<!\\)(?:\\[,;: ]|~)"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\leq(?:slant)?(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\geq(?:slant)?(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\neq(?![a-zA-Z])|!="), r"\\ne "),
    (re.compile(r"\\(?:c|l)?dots(?![a-zA-Z])"), "..."),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\{bmatrix\}"), "{pmatrix}"),
    (re.compile(r"\^ ?\{ ?\\circ ?\}|\\degree(?![a-zA-Z])|\^ ?\\circ(?![a-zA-Z])"), r"^\\circ "),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\approx(?![a-zA-Z])"), "="),
    (re.compile(r"\\mathbb ?(?:\{R\}|R(?![a-zA-Z]))"), r"(-\\infty,\\infty)"),
    (re.compile(r"\\frac ?(\\[a-zA-Z]+) ?(?=[0-9\\{])"), r"\\frac{\1}"),
    (re.compile(r"(\\frac ?\{[^{}]*\}) ?([0-9]|\\[a-zA-Z]+)"), r"\1{\2}"),
    # What people write without LaTeX.
    (re.compile(r"(?<![a-zA-Z\\])sqrt ?\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt ?\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"(?<![a-zA-Z\\])(?:infinity|inf)(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"(?<=[\w)}])\*\*(?=[\w({-])"), "^"),
    (re.compile(r"\^ ?([-+]?[0-9]{2,}|-[0-9])"), r"^{\1}"),
    (re.compile(r"\^ ?\(([-+]?[0-9]+(?:/[0-9]+)?)\)"), r"^{\1}"),
)
_WORDS_OF = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)|([A-Z])\s*[.)]")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_QUIET = re.compile(r"(?:[^\W\d_]|[\s$.,:;=*'\"-])*")  # around a box: words, and no second answer
_PAIRS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))


@lru_cache(maxsize=8192)
def _normalise(answer: str) -> str | None:
    text = _out_of_its_box(answer)
    if text is None:
        return None
    for _ in range(20):  # wrappings come in any order: $\text{(C)}.$
        before, text = text, _step(text)
        if text == before:
            break
    readable = any(c.isalnum() for c in text) and text.count("{") == text.count("}")
    return text if readable else None


def normalise(answer: str) -> str | None:
    """The answer in the one way of writing; None if it is empty or too long to be read. Idempotent."""
    return _normalise(answer) if len(answer) <= MAX_CHARACTERS else None


def _out_of_its_box(text: str) -> str | None:
    """What a box holds, where one is all of `text` but for words; None where it is one of several answers."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return text
    depth, end = 1, boxes[0].end()
    while end < len(text) and depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0) * (text[end - 1] != "\\")
        end += 1
    outside = text[: boxes[0].start()] + text[end:]
    alone = not depth and _QUIET.fullmatch(outside.replace("\\(", "").replace("\\)", ""))
    return _out_of_its_box(text[boxes[0].end() : end - 1]) if alone else None


def _step(text: str) -> str:
    """`text` one layer plainer."""
    text = text.translate(_CHARACTERS).strip().lstrip("=: ")
    text = text if text.endswith("...") else text.rstrip(".,;: ")
    text = "".join(map(_fraction, text)) if not text.isascii() else text
    for start, end in _PAIRS:
        inner = text.removeprefix(start).removesuffix(end)
        if text == start + inner + end and inner and start not in inner:
            return inner
    text = text.replace("\\$", _MONEY)
    text = _LONE_DOLLAR.sub(_MONEY, text) if text.count("$") % 2 else text
    text = text.replace("$", "").replace(_MONEY, "\\$").replace("{,}", ",")
    for pattern, plain in _COMMANDS:
        text = pattern.sub(plain, text)
    text = _WORDS_OF.sub(r" \1 ", text)
    text = " ".join(text.split())
    if text.startswith("{") and text.endswith("}") and "{" not in text[1:]:
        return text[1:-1]
    choice = _CHOICE.fullmatch(text)
    return next(group for group in choice.groups() if group) if choice else text


def _fraction(character: str) -> str:
    r"""`½` as `\frac{1}{2}`."""
    kind, _, rest = unicodedata.decomposition(character).partition(" ")
    if kind != "<fraction>":
        return character
    above, below = "".join(chr(int(code, 16)) for code in rest.split()).split("\u2044")
    return rf"\frac{{{above}}}{{{below}}}"
