"""A problem's group: its K samples at one attempt, as they are graded and as reward terms see them."""

from collections.abc import Sequence
from dataclasses import dataclass

from score_core.problems import Problem


@dataclass(frozen=True)
class Ungraded:
    """What was answered to one problem at one attempt, by K samples side by side.

    Attributes:
        attempt: counted from 1.
        texts: the answers as text, without special tokens.
        tokens: the sampled ids, up to and including the first end token.
        truncated: whether the answer hit its length limit.
    """

    problem: Problem
    attempt: int
    texts: Sequence[str]
    tokens: Sequence[Sequence[int]]
    truncated: Sequence[bool]

    @property
    def lengths(self) -> list[int]:
        """Sampled tokens of each member."""
        return [len(ids) for ids in self.tokens]


@dataclass(frozen=True)
class Group(Ungraded):
    """The same with the verifier's verdicts.

    Attributes:
        extracted: the normalised answers; None where there is none that can be read.
        correct: whether they are right.
    """

    extracted: Sequence[str | None]
    correct: Sequence[bool]
