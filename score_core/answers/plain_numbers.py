r"""Numbers as people write them: `1,000`, `1.6 \times 10^{-19}`, `2\frac12`, `0.(3)`, `20\%`, `5 cm`.

They are read here, exactly, before any algebra sees them, which takes the e of `1.5e-7` for Euler's number.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from score_core.answers.units import PERCENT, read_unit

MAX_EXPONENT = 400  # beyond any quantity; 10 to the power of what a model writes may fill the memory

_HEAD = re.compile(r"([-+]?) ?(\\\$|[€£¥₹])? ?([-+]?) ?")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_BRACED = rf"\{{ ?([-+]? ?{_DECIMAL}) ?\}}"
_POWER = r"10 ?\^ ?\{? ?([-+]?[0-9]+) ?\}?"


@dataclass(frozen=True)
class Quantity:
    """A number with its unit.

    Attributes:
        value: exact.
        places: after the point, of a decimal; None of an integer or a fraction, which are exact.
        unit: under its one name; empty for none.
    """

    value: Fraction
    places: int | None
    unit: str


@lru_cache(maxsize=8192)
def read_number(text: str) -> Quantity | None:
    """The number that all of `text` is; None if it is anything else.

    Args:
        text: normalised, see `score_core/answers/mathematics.py`.
    """
    head = _HEAD.match(text)
    assert head is not None  # it may be empty
    sign, currency, inner = head.groups()
    if sign and inner:
        return None
    matches = ((form.match(text, head.end()), read) for form, read in _FORMS)
    found, read = next(((match, read) for match, read in matches if match), (None, _decimal))
    if found is None:
        return None
    rest = text[found.end() :]
    # Directly at the digits one letter is a variable: 5m is a product, 5 m and 5cm are lengths.
    unit = None if re.match(r"[A-Za-z](?![A-Za-z])", rest) else read_unit(rest)
    before = read_unit(currency or "")
    if unit is None or before is None or (unit and before and unit != before):
        return None
    try:
        number = read(*found.groups())
    except (ZeroDivisionError, OverflowError):
        return None
    if unit and number.unit:
        return None
    return Quantity(
        -number.value if "-" in (sign, inner) else number.value, number.places, number.unit or unit or before
    )


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").removesuffix("."))


def _fraction(whole: str | None, above: str, below: str) -> Quantity:
    parts = _exact(above), _exact(below)
    if whole and min(parts) < 0:
        raise ZeroDivisionError  # 2\frac{-1}{2} is no mixed number
    return Quantity(int(whole or 0) + parts[0] / parts[1], None, "")


def _repeating(whole: str, decimals: str, digits: str) -> Quantity:
    tail = Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(decimals))
    return Quantity(Fraction(int(whole + decimals or "0"), 10 ** len(decimals)) + tail, None, "")


def _decimal(mantissa: str, e: str | None = None, power: str | None = None) -> Quantity:
    exponent = e or power or "0"
    if len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
        raise OverflowError
    decimals = mantissa.partition(".")[2]
    places = len(decimals) - int(exponent) if decimals else None
    return Quantity(_exact(mantissa) * Fraction(10) ** int(exponent), places, "")


# Tried in this order; what is behind the number must be its unit.
_FORMS: list[tuple[re.Pattern[str], Callable[..., Quantity]]] = [
    (re.compile(form), read)
    for form, read in (
        (rf"([0-9]+)? ?\\frac ?{_BRACED} ?{_BRACED}", _fraction),
        (r"([0-9]+)? ?\\frac ?([0-9]) ?\{? ?([0-9]+) ?\}", _fraction),
        (r"([0-9]+)? ?\\frac ?\{? ?([0-9]+) ?\} ?([0-9])", _fraction),
        (r"([0-9]+)? ?\\frac ?([0-9]) ?([0-9])", _fraction),
        (r"([0-9]+) ([0-9]+) ?/ ?([0-9]+)", _fraction),
        (rf"()({_DECIMAL}) ?/ ?({_DECIMAL})", _fraction),
        (r"([0-9]*)\.([0-9]*)(?:\\(?:overline|bar|dot) ?|(?=\())[{(]? ?([0-9]+) ?[})]?", _repeating),
        (r"([0-9]*)\.([0-9]*?)([0-9])\3\3+ ?\.\.\.", _repeating),
        (r"([0-9]+) ?_ ?\{? ?([0-9]{1,2}) ?\}?", lambda n, base: Quantity(Fraction(n), None, f"base {base}")),
        (_POWER, lambda exponent: _decimal("1", exponent)),
        (rf"({_DECIMAL})(?: ?[eE]([-+]?[0-9]+)(?![0-9.])| ?(?:\\times|\\cdot|\*|x) ?{_POWER})?", _decimal),
    )
]


def same_number(gold: Quantity, answer: Quantity) -> bool:
    r"""Whether `answer` is the number `gold`.

    Integers and fractions are exact. A decimal is right if rounding it to the gold's places gives the gold,
    and it has as many. A unit may be left out or added, not changed; `20\%` is 20 as well as 0.2.
    """
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if _rounds_to(gold, answer):
        return True
    one_percent = (gold.unit == PERCENT) != (answer.unit == PERCENT)
    return one_percent and _rounds_to(_share(gold), _share(answer))


def _share(number: Quantity) -> Quantity:
    if number.unit != PERCENT:
        return number
    places = None if number.places is None else number.places + 2
    return Quantity(number.value / 100, places, "")


def _rounds_to(gold: Quantity, answer: Quantity) -> bool:
    if gold.value == answer.value:
        return True
    if gold.places is None:
        return False
    # An answer with fewer places stays what it is, and is not the gold answer.
    scale = Fraction(10) ** gold.places
    rounded = (abs(answer.value) * scale + Fraction(1, 2)).__floor__() / scale  # half away from zero
    return gold.value == (rounded if answer.value >= 0 else -rounded)
