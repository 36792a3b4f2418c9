"""Plain RL: every attempt is rewarded alike, from the base model; what SCoRe is compared with.

With one attempt it is single-turn RL, with two plain multi-turn RL (Eq. 2 of arXiv 2409.12917 for every
attempt). `baseline: group_standardised` makes it GRPO (arXiv 2402.03300) without its clipping, which one step
a batch never reaches.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from score_core.algorithms.policy_gradient import PolicyGradient
from score_core.config.section import Probability
from score_core.config.training import Training
from score_core.rl.objective import stage_two


class PlainRLSettings(Training):
    """What the method adds to the section `training`."""

    attempts: Annotated[int, Field(ge=1, le=10)]
    gamma: Probability  # the share of the next attempt's return that an attempt is credited


class PlainRL(PolicyGradient):
    """Stage II without its bonus, for any number of attempts."""

    Settings: ClassVar[type[PlainRLSettings]] = PlainRLSettings

    def __init__(self, settings: PlainRLSettings) -> None:
        super().__init__(settings, stage_two(settings.attempts, settings.beta1, 0.0, settings.gamma))
