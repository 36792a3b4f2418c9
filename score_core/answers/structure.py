r"""What two answers have to do with each other: lists, tuples, intervals, equations, numbers, units, words.

`compare` takes answers apart until single values are left. Numbers and words it decides itself, exactly;
only expressions go to the algebra that it is given. A yes of the algebra is not enough, since it reads past
much that matters, so what is left over in an answer is a no: words that are no unit, a second answer, letters
of another case, an operation that the gold answer has carried out.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from score_core.answers.leftovers import in_degrees, is_undone, other_case, words_of
from score_core.answers.plain_numbers import read_number, same_number
from score_core.answers.units import read_unit

Algebra = Callable[[str, str], bool | None]  # (gold, answer), both expressions; None where it is not asked

MAX_UNORDERED = 50  # of longer lists each member would be compared with each of the other's

_SEPARATORS = re.compile(r" (?:or|and) |,? ?\b(?:or|and)\b |[,;]")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_OPENING, _CLOSING = "([{", ")]}"
_NAME = re.compile(
    r"(?:\\?[A-Za-z]+|[A-Za-z]\^\{-1\}|\\frac ?\{d[A-Za-z]?\} ?\{d[A-Za-z]\}"
    r"|\\(?:angle|overline|triangle|vec) ?\{?[A-Za-z]+\}?)'*"
    r"(?: ?_ ?(?:[A-Za-z0-9]|\{[A-Za-z0-9, ]*\}))?'*(?: ?\([A-Za-z](?:, ?[A-Za-z])*\))?"
)
_EQUALS = re.compile(r"(?<![<>!\\])=|\\in(?![a-zA-Z])")
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|lt|gt|in)(?![a-zA-Z])")
_TIME = re.compile(r"([0-9]{1,2}):([0-5][0-9])(?: ?([aApP])\.? ?[mM]\.?)?")


def compare(gold: str, answer: str, algebra: Algebra) -> bool | None:
    """Whether two normalised answers are equal; None where it takes an algebra that was not asked."""
    if read_number(gold) or _TIME.fullmatch(gold):
        return _compare_values(gold, answer, algebra)
    (kind, golds), (other, answers) = _parts(gold), _parts(answer)
    if kind == other == "one":
        return _compare_equations(golds[0], answers[0], algebra)
    if "one" in (kind, other) and "list" not in (kind, other):
        # An interval and an inequality may be the same set.
        one = golds[0] if kind == "one" else answers[0]
        return algebra(gold, answer) if _RELATION.search(one) and not words_of(one) else False
    if len(golds) != len(answers) or (kind != other and not _one_set(kind, golds, other, answers)):
        return False
    if kind in ("list", "union") and len(golds) <= MAX_UNORDERED:
        return _matched([[compare(one, each, algebra) for each in answers] for one in golds])
    return _all(compare(one, each, algebra) for one, each in zip(golds, answers, strict=True))


def _one_set(kind: str, golds: Sequence[str], other: str, answers: Sequence[str]) -> bool:
    """Whether inequalities stand on one side, joined by `or`, and a union of intervals on the other."""
    inequalities = golds if kind == "list" else answers
    return {kind, other} == {"list", "union"} and all(_RELATION.search(one) for one in inequalities)


def has_words(text: str) -> bool:
    """Whether a normalised answer is compared as words are: as it is written."""
    return bool(words_of(text)) and read_number(text) is None


def _parts(text: str) -> tuple[str, list[str]]:
    """`list`, `union`, the brackets of a tuple or interval, or `one`; and what it consists of."""
    if read_number(text):
        return "one", [text]
    pieces = _split(text, _SEPARATORS)
    if len(pieces) > 1:
        return "list", pieces
    if text.count(r"\pm") == 1 and not words_of(text):
        return "list", [" ".join(text.replace(r"\pm", sign).split()).removeprefix("+ ") for sign in "+-"]
    pieces = _split(text, re.compile(r"\\cup(?![a-zA-Z])"))
    if len(pieces) > 1:
        return "union", pieces
    inner = _inside(text)
    if inner is None:
        return "one", [text]
    start, content, end = inner
    pieces = _split(content, _SEPARATORS)
    if start == "\\{":
        return ("list", pieces) if len(pieces) > 1 else _parts(content)
    if len(pieces) > 1:
        return start + end, pieces
    return _parts(content) if start == "(" and end == ")" else ("one", [text])


def _split(text: str, separators: re.Pattern[str]) -> list[str]:
    """`text` at the separators that stand in no brackets."""
    depth, depths = 0, []
    for at, character in enumerate(text):
        if character in _CLOSING:
            depth -= 1
        depths.append(depth)
        if character in _OPENING:
            depth += 1
        if depth < 0 or (character == "\\" and text[at : at + 6] == r"\begin"):
            return [text]
    found = [m for m in separators.finditer(text) if depths[m.start()] == 0]
    # 1,000, 2,000 are two numbers, 100,200 are two as well.
    if any(m.group() != "," or text[m.end() : m.end() + 1] == " " for m in found):
        thousands = {m.start() for m in _THOUSANDS.finditer(text)}
        found = [m for m in found if m.start() not in thousands]
    ends = [(0, 0), *((m.start(), m.end()) for m in found), (len(text), len(text))]
    pieces = [text[start:end].strip() for (_, start), (end, _) in pairwise(ends)]
    return [piece for piece in pieces if piece] or [text]


def _inside(text: str) -> tuple[str, str, str] | None:
    """The brackets around all of `text`, and what is in them."""
    for start, ends in (("\\{", ("\\}",)), ("(", (")", "]")), ("[", (")", "]"))):
        end = next((end for end in ends if text.endswith(end)), None)
        if text.startswith(start) and end is not None and len(text) > len(start) + len(end):
            content = text[len(start) : len(text) - len(end)]
            depth = 0
            for character in content:
                depth += (character in _OPENING) - (character in _CLOSING)
                if depth < 0:
                    return None
            if depth:
                return None
            return start, content.strip(), end
    return None


def _compare_equations(gold: str, answer: str, algebra: Algebra) -> bool | None:
    (name, golds), (other, answers) = _named(gold), _named(answer)
    if len(golds) == len(answers) == 1:
        if name and other and _squeezed(name) != _squeezed(other):
            # y = 2x + 1 and x = (y - 1)/2 are one line, x = 5 and y = 5 are not.
            return False if read_number(golds[0]) else _ask(gold, answer, algebra)
        if name or other:
            return compare(golds[0], answers[0], algebra)
        return _compare_values(gold, answer, algebra)
    if len(answers) > 1 and len(golds) == 1 and not name:
        # A chain of equals, 2 + 5 = 7, is its last value if it holds.
        last = answers[-1]
        return _all([compare(golds[0], last, algebra), *(_ask(one, last, algebra) for one in answers[:-1])])
    return _ask(gold, answer, algebra) if _EQUALS.search(answer) else False


def _named(text: str) -> tuple[str, list[str]]:
    """The name in `name = value`, or nothing, and the values between the signs of equality."""
    if len(re.findall(r"<|>|\\(?:le|ge|ne)(?![a-zA-Z])", text)):
        return "", [text]
    first, *rest = (piece.strip() for piece in _split(text, _EQUALS))
    if not rest:
        return "", [first]
    return (first, rest) if _NAME.fullmatch(first) else ("", [first, *rest])


def _compare_values(gold: str, answer: str, algebra: Algebra) -> bool | None:
    number = read_number(gold)
    if number is not None:
        kind, parts = _parts(answer)
        if kind != "one":
            return False
        _, values = _named(parts[0])
        given = read_number(values[-1])
        if given is None or not same_number(number, given):
            # A number is answered with a number: the problem written down again is no value.
            return False
        return _all(_ask(one, values[-1], algebra) for one in values[:-1])
    time = _TIME.fullmatch(gold)
    if time is not None:
        return _same_time(time, _TIME.fullmatch(_named(answer)[1][-1]))
    return _ask(gold, answer, algebra)


def _same_time(gold: re.Match[str], answer: re.Match[str] | None) -> bool:
    if answer is None or int(gold[2]) != int(answer[2]):
        return False
    halves = [time[3] and time[3].lower() for time in (gold, answer)]
    hours = [
        int(time[1]) if half is None else int(time[1]) % 12 + 12 * (half == "p")
        for time, half in zip((gold, answer), halves, strict=True)
    ]
    return hours[0] == hours[1] or (None in halves and int(gold[1]) == int(answer[1]))


def _ask(gold: str, answer: str, algebra: Algebra) -> bool | None:
    """Words as they are written; the rest by the algebra, unless what it would not see speaks against it."""
    numbers = read_number(gold), read_number(answer)
    if None not in numbers:
        return same_number(*numbers)  # type: ignore[arg-type]
    (one, unit), (other, given) = _without_unit(gold), _without_unit(answer)
    if unit and given and unit != given:
        return False
    if words_of(one) or words_of(other):
        return _squeezed(gold) == _squeezed(answer)
    if (
        one.count("'") != other.count("'")
        or other_case(one, other)
        or is_undone(one, other)
        or in_degrees(one, other)
    ):
        return False
    return algebra(one, other)


def _without_unit(text: str) -> tuple[str, str]:
    words = text.split(" ")
    for at in range(max(1, len(words) - 5), len(words)):
        first = re.match(r"[A-Za-z]*", words[at])
        unit = read_unit(" ".join(words[at:])) if first and len(first.group()) != 1 else None
        if unit:
            return " ".join(words[:at]), unit
    return text, ""


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        found = None if verdict is None else found
    return found


def _matched(equal: Sequence[Sequence[bool | None]]) -> bool | None:
    """Whether rows and columns can be paired off; None where that hangs on what is not known."""

    def pairs_off(unknown: bool) -> bool:
        holder: dict[int, int] = {}

        def place(row: int, tried: set[int]) -> bool:
            for column, verdict in enumerate(equal[row]):
                if (unknown if verdict is None else verdict) and column not in tried:
                    tried.add(column)
                    if column not in holder or place(holder[column], tried):
                        holder[column] = row
                        return True
            return False

        return all(place(row, set()) for row in range(len(equal)))

    return True if pairs_off(False) else None if pairs_off(True) else False
