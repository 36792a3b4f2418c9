"""Whether computer algebra finds two expressions equal; it may take any time, so only helper processes ask.

math-verify parses and compares. Its yes is not enough: it rounds, solves, and folds letter case, so that
`9.1e-31` equals `1.6e-19` and any two equations without a solution are one. What it accepts is asked again
without rounding: numbers by their value, expressions at a few points, equations by their proportion.
"""

import re
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.relational import Relational
from sympy.logic.boolalg import And

from score_core.answers.structure import compare

# Units and words are dealt with before; what is left of them here is no mathematics.
_READING = LatexExtractionConfig(
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
)
_EXPONENT = re.compile(r"(?<![A-Za-z0-9\\])([0-9]*\.?[0-9]+)[eE]([-+]?[0-9]{1,3})(?![0-9.])")
DIGITS = 30  # of numeric evaluation
TOLERANCE = sympy.Float("1e-15", DIGITS)  # relative
POINTS = (sympy.Rational(5, 7), sympy.Rational(19, 11), sympy.Rational(37, 13))
_FLIPPED = {
    sympy.Gt: sympy.Lt,
    sympy.Lt: sympy.Gt,
    sympy.Ge: sympy.Le,
    sympy.Le: sympy.Ge,
    sympy.Eq: sympy.Eq,
    sympy.Ne: sympy.Ne,
}

# Pairs that have the parser build its tables, which it does at its first use.
WARM = [(left, r"\sqrt{2}+x") for left in (r"\frac{1}{2}+x^2", r"e^{2x}", r"a_1=3", r"(1,\infty)")]


def equal(gold: str, answer: str) -> bool:
    """Whether two normalised answers are equal, algebra included. Not equal where it cannot tell."""
    return compare(gold, answer, _equal_expressions) is True


def _equal_expressions(gold: str, answer: str) -> bool:
    try:
        one, other = _parsed(gold), _parsed(answer)
        if one is None or other is None:
            return False
        if isinstance(one, Relational | And) and isinstance(other, Relational | And):
            return _same_relation(one, other)
        mixed = isinstance(one, Relational | And) != isinstance(other, Relational | And)
        if mixed and not isinstance(one, sympy.Set) and not isinstance(other, sympy.Set):
            return False
        said = verify(one, other, timeout_seconds=None, allow_set_relation_comp=True)
        return bool(said) and _agree(one, other)
    except Exception:
        return False


def _parsed(text: str) -> Any:
    """The one expression in `text`, its decimals exact; None where it cannot be read to the end."""
    text = _EXPONENT.sub(r"\1 \\times 10^{\2}", text)
    found = parse(f"${text}$", [_READING], fallback_mode="no_fallback", parsing_timeout=None)
    if len(found) != 1 or found[0] is None:
        return None
    expression = found[0]
    if isinstance(expression, sympy.Basic):
        floats = expression.atoms(sympy.Float)
        exact = {number: sympy.Rational(str(number)) for number in floats}
        return expression.xreplace(exact) if exact else expression
    return expression


def _agree(one: Any, other: Any) -> bool:
    """Numerically, to a relative difference; True where there is nothing to evaluate, such as sets."""
    if not (isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr)):
        return True
    symbols = sorted(one.free_symbols | other.free_symbols, key=str)
    seen = 0
    for at in range(len(POINTS)):
        point = {symbol: POINTS[(at + n) % len(POINTS)] + n for n, symbol in enumerate(symbols)}
        values = [_value(expression, point) for expression in (one, other)]
        if None in values:
            continue
        seen += 1
        scale = max(abs(value) for value in values)
        if abs(values[0] - values[1]) > TOLERANCE * scale:
            return False
        if not symbols:
            break
    # Where neither has a value (infinity, an unknown function), the forms themselves were compared.
    return seen > 0 or one == other or bool(symbols)


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    value = expression.subs(point).doit().evalf(DIGITS)
    return value if value.is_number and value.is_finite else None


def _same_relation(one: Any, other: Any) -> bool:
    """The same equation or inequality up to a factor, and solved if the other is."""
    if isinstance(one, And) or isinstance(other, And):
        if not (isinstance(one, And) and isinstance(other, And)):
            return False
        parts, others = (list(both._unsorted_args) for both in (one, other))
        return len(parts) == len(others) and any(
            all(map(_same_relation, parts, order)) for order in (others, others[::-1])
        )
    kinds = [type(both) for both in (one, other)]
    if kinds[0] not in _FLIPPED or kinds[1] not in (kinds[0], _FLIPPED[kinds[0]]):
        return False
    if _is_solved(one) and not _is_solved(other):
        return False
    ratio = sympy.simplify((one.lhs - one.rhs) / (other.lhs - other.rhs))
    if not ratio.is_number or not ratio.is_finite or ratio.is_zero:
        return False
    if kinds[0] in (sympy.Eq, sympy.Ne):
        return True
    return bool(ratio.is_positive if kinds[0] is kinds[1] else ratio.is_negative)


def _is_solved(relation: Any) -> bool:
    sides = relation.lhs, relation.rhs
    return any(
        isinstance(side, sympy.Symbol) and not rest.free_symbols for side, rest in (sides, sides[::-1])
    )
