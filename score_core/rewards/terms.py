"""Reward terms: what training pays for.

A term sees a problem's whole group at one attempt and returns one number a member, so it may look at
the answers' form or length, grade by degrees, or compare the members with each other. A new one is a
function, or a class made with its entry of `reward.terms` if it needs settings or a state, and a line
in `TERMS`. Right or wrong is decided elsewhere (`score_core/answers/verifier.py`).
"""

import math
import re
from collections.abc import Callable, Sequence

from score_core.answers.code_tests import share_passed
from score_core.config.reward import Reward, Term, named
from score_core.rewards.group import Group

RewardTerm = Callable[[Group], Sequence[float]]

_THINK = re.compile(r"<think>.*?</think>", re.DOTALL)
_TWO_BLOCKS = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)


def match(group: Group) -> list[float]:
    """1 for a right answer, 0 for any other."""
    return [float(correct) for correct in group.correct]


def format_and_match(group: Group) -> list[float]:
    """0.25 for a think pair, 0.25 for exactly one answer pair, 0.5 for a right answer."""
    return [
        0.25 * bool(_THINK.search(text)) + 0.25 * _one_pair(text, "answer") + 0.5 * correct
        for text, correct in zip(group.texts, group.correct, strict=True)
    ]


def strict_format_and_match(group: Group) -> list[float]:
    """0.5 if the text is one think block, then one answer block, and nothing else; 0.5 for a right answer."""
    return [
        0.5 * (_one_pair(text, "think") and _one_pair(text, "answer") and bool(_TWO_BLOCKS.fullmatch(text)))
        + 0.5 * correct
        for text, correct in zip(group.texts, group.correct, strict=True)
    ]


def code_share(group: Group) -> list[float]:
    """The share of its problem's tests that a program passes, 1 for a right one; needs `code_tests`."""
    return [share_passed(group.problem.references, program) for program in group.extracted]


TERMS: dict[str, RewardTerm | Callable[[Term], RewardTerm]] = {
    "match": match,
    "code_share": code_share,
    "format_and_match": format_and_match,
    "strict_format_and_match": strict_format_and_match,
}


class Rewards:
    """The weighted sum of the terms that `reward.terms` names.

    Raises:
        UserError: there is no term of that name.
    """

    def __init__(self, settings: Reward) -> None:
        self._terms: list[tuple[Term, RewardTerm]] = [
            (term, named(TERMS, term.name, f"reward.terms.{at}.name", term))
            for at, term in enumerate(settings.terms)
        ]

    def score(self, group: Group) -> list[float]:
        """The reward of each member.

        Raises:
            ValueError: a term returned something else than one finite number a member.
        """
        weighted = []
        for settings, term in self._terms:
            values = term(group)
            if len(values) != len(group.texts) or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"reward term {settings.name}: expected one finite number for each of the "
                    f"{len(group.texts)} members of a group, found {values}"
                )
            weighted.append([settings.weight * value for value in values])
        # The exact sum does not depend on the terms' order.
        return [math.fsum(values) for values in zip(*weighted, strict=True)]


def _one_pair(text: str, tag: str) -> bool:
    """Whether `tag` opens once and closes once, in this order."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    return text.count(opening) == text.count(closing) == 1 and text.index(opening) < text.index(closing)
