"""Reward terms: what training pays for.

A term sees a problem's whole group at one attempt and returns one number a member, so it may look at
the answers' form or length, grade by degrees, or compare the members with each other. A new one is a
function, or a class made with its entry of `reward.terms` if it needs settings or a state, and a line
in `TERMS`; one that stands elsewhere is named by its import path, `package.module:function`. Right or wrong
is decided in another place (`score_core/answers/verifier.py`).
"""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

from score_core.answers.code_tests import share_passed
from score_core.answers.questions import token_f1
from score_core.config.reward import Reward, Term, named
from score_core.errors import UserError, refusing
from score_core.rewards.forms import (
    format,
    format_and_match,
    reasoning_steps,
    strict_format_and_match,
    tag_count,
)
from score_core.rewards.gold_judge import GoldJudge
from score_core.rewards.group import Group
from score_core.rewards.lengths import cosine_length, repetition

RewardTerm = Callable[[Group], Sequence[float]]


def match(group: Group) -> list[float]:
    """1 for a right answer, 0 for any other."""
    return [float(correct) for correct in group.correct]


def f1(group: Group) -> list[float]:
    """Token F1 of the extracted answer, best over the references; 0 where there is no answer."""
    return [
        0.0 if answer is None else token_f1(answer, group.problem.references) for answer in group.extracted
    ]


def code_share(group: Group) -> list[float]:
    """The share of its problem's tests that a program passes, 1 for a right one; needs `code_tests`."""
    return [share_passed(group.problem.references, program) for program in group.extracted]


TERMS: dict[str, RewardTerm | Callable[[Any], RewardTerm]] = {
    "match": match,
    "code_share": code_share,
    "f1": f1,
    "gold_judge": GoldJudge,
    "format_and_match": format_and_match,
    "strict_format_and_match": strict_format_and_match,
    "format": format,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "cosine_length": cosine_length,
    "repetition": repetition,
}


class Rewards:
    """The weighted sum of the terms that `reward.terms` names.

    Args:
        training: whether models that judge are heard.

    Raises:
        UserError: there is no term of that name, or nothing at that import path.
    """

    def __init__(self, settings: Reward, training: bool) -> None:
        wanted = settings.terms if training else settings.evaluated
        self._terms: list[tuple[Term, RewardTerm]] = [
            (term, _made(term, f"reward.terms.{at}.name"))
            for at, term in enumerate(settings.terms)
            if term in wanted
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


def _made(settings: Term, key: str) -> RewardTerm:
    """The term of that name, or what stands at that import path."""
    if ":" not in settings.name:
        made: RewardTerm = named(TERMS, settings.name, key, settings)
        return made
    module, _, attribute = settings.name.partition(":")
    remedy = "name a term as package.module:function, where package can be imported from the project's folder"
    with refusing(f"{key}: {module} cannot be imported", remedy):
        found: Any = importlib.import_module(module)
    found = getattr(found, attribute, None)
    if not callable(found):
        raise UserError(f"{key}: {module} has no function or class {attribute!r}; {remedy}.")
    term: RewardTerm = found(settings) if isinstance(found, type) else found
    return term
