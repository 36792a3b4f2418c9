"""Verdicts of the model on its own attempts: how they are read, and what stands where a dialogue ends early.

A dialogue with verdicts alternates: attempt, verdict, attempt, ... It ends with the first verdict that does
not say "wrong", so the policy itself decides how many turns there are (PAG, arXiv 2506.10406).
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from score_core.rewards.grader import Graded

Said = TypeVar("Said")
# The whole last line, but for marks around it: a word somewhere in a sentence may well be denied there.
_VERDICT = re.compile(r"(?:verdict:\s*)?(right|wrong)\.?", re.IGNORECASE)
_MARKS = str.maketrans("", "", "*_`\"'")


def judgement(text: str) -> str | None:
    """`right` or `wrong`, if the text's last line is that word, or `Verdict:` and that word; else None."""
    last = text.rstrip().rpartition("\n")[2]
    found = _VERDICT.fullmatch(last.translate(_MARKS).strip())
    return found[1].lower() if found else None


def graded_verdict(text: str, correct: bool) -> Graded:
    """A verdict is right, and earns 1, where it says what is so; one that cannot be read never is.

    Args:
        correct: whether the attempt that it is about is.
    """
    said = judgement(text)
    agrees = said is not None and (said == "right") == correct
    return Graded(said, agrees, float(agrees))


def standing(turns: Sequence[Said | None]) -> list[Said]:
    """The turns of a dialogue with verdicts; for one that did not take place stands the last of its kind.

    So an attempt that was not revised is the next one, too.

    Args:
        turns: attempt, verdict, attempt, ...; None from where the dialogue had ended.
    """
    stood: list[Said] = []
    for at, turn in enumerate(turns):
        stood.append(stood[at - 2] if turn is None else turn)
    return stood
