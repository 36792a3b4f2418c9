"""The grader: every attempt of a rollout, right or wrong, and what it earns."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from score_core.answers.verifier import Verifier
from score_core.config.reward import Reward
from score_core.rewards.group import Group, Ungraded
from score_core.rewards.terms import Rewards


class Graded(NamedTuple):
    """What one attempt is worth."""

    extracted: str | None  # the normalised answer; None if there is none that can be read
    correct: bool  # what accuracy counts
    reward: float  # what training maximises, before any shaping


class Grader:
    """The verifier and the rewards that the section `reward` describes.

    Args:
        training: comparisons have `reward.training_seconds`, not `reward.seconds`; and models that judge
            are heard.

    Raises:
        UserError: a name in it is unknown. Making a grader costs nothing: make one before any work.
    """

    def __init__(self, settings: Reward, training: bool = False) -> None:
        if training:
            settings = settings.model_copy(update={"seconds": settings.training_seconds})
        self._verifier = Verifier(settings)
        self._rewards = Rewards(settings, training)

    def grade(self, groups: Sequence[Ungraded]) -> list[list[Graded]]:
        """Grades the members of each group, in order.

        All groups are verified in one batch, whose slow comparisons then run side by side.
        """
        texts = [text for group in groups for text in group.texts]
        references = [group.problem.references for group in groups for _ in group.texts]
        verdicts = iter(self._verifier.verify_all(texts, references))
        graded = []
        for ungraded in groups:
            found = list(islice(verdicts, len(ungraded.texts)))
            group = Group(
                **vars(ungraded),
                extracted=[verdict.extracted for verdict in found],
                correct=[verdict.correct for verdict in found],
            )
            rewards = self._rewards.score(group)
            graded.append([Graded(*verdict, reward) for verdict, reward in zip(found, rewards, strict=True)])
        return graded
