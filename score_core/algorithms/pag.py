"""Verify, then revise (PAG, arXiv 2506.10406): the policy judges its attempt, and mends what it calls wrong.

    x -> y1 -> v, "right" or "wrong" -> y2, only after "wrong"

Each turn is credited with its own reward: r(y1), 1 for a verdict that says what is so, r(y2). A verdict that
cannot be read earns nothing, and ends the dialogue as "right" does.

The policy thus decides how many turns there are. The estimate stays unbiased, since

* the loss is a mean over all trajectories, revised or not; over the revised ones it would estimate another
  objective (`objective.py`, `token_weights`);
* a revision's baseline is made of other trajectories that were revised too, whose verdicts and revisions are
  independent of this revision; where there is none, nothing is subtracted (`advantages.py`).
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from score_core.algorithms.policy_gradient import PolicyGradient
from score_core.config.training import Training
from score_core.rl.objective import stage_two

log = logging.getLogger(__name__)
TURNS = 3  # attempt, verdict, attempt


class PagSettings(Training):
    """What the method asks of the section `training`; it adds nothing."""

    attempts: Literal[2]
    verifies: ClassVar[bool] = True


class Pag(PolicyGradient):
    """Rewards both attempts and the verdict between them, each by itself."""

    Settings = PagSettings

    def __init__(self, settings: PagSettings) -> None:
        super().__init__(settings, stage_two(TURNS, settings.beta1, alpha=0.0, gamma=0.0))

    def assess(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Warns where no verdict was right: where they can be read, some are by chance."""
        if summary["validation_accuracy_v1"] == 0:
            log.warning(
                "no verdict of the last validation was right, so most likely none could be read; expected a "
                "last line `right` or `wrong`. See what the model writes (`python -m tasks.commands.try_it`) "
                "and word conversation.verify so that it does; the embedded base model has to be taught "
                "verdicts (model.verdict_share)"
            )
        return {}
