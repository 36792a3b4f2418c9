"""Fine-tuning on the model's own samples: the part that supervised methods have in common.

An iteration samples from the model that it starts from, chooses attempts, and maximises their
log-probability: weight 1 on the tokens that were chosen, 0 on all others, and no KL. Samples are drawn as
they are needed and used once, which is one epoch over a set that was sampled before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from score_core.config.section import Count
from score_core.config.training import Training
from score_core.rl.algorithm import Algorithm, Credit, Judged
from score_core.rl.objective import token_weights

if TYPE_CHECKING:  # see objective.py
    from torch import Tensor


class SupervisedSettings(Training):
    """What supervised methods add to the section `training`."""

    iterations: Count  # each samples from the model of the one before, and trains it for `steps`


class Supervised(Algorithm):
    """Maximum likelihood of attempts that a method chooses."""

    samples_start = True

    @property
    def kl_weight(self) -> tuple[float, ...]:
        """No KL."""
        return (0.0,) * self.turns

    def phases(self) -> list[Algorithm]:
        """One for each iteration."""
        return [type(self)(self.settings) for _ in range(self.settings.iterations)]

    def imitate(
        self, judged: Judged, chosen_MS: Tensor, lengths_MS: Tensor, source_MS: Tensor | None = None
    ) -> Credit:
        """The negative log-likelihood of what was chosen, by the settings' aggregation.

        Args:
            chosen_MS: whether the attempt is learned from; logged as its return.
            lengths_MS: its tokens.
            source_MS: as in `Credit`.
        """
        weight_MS = token_weights(self.settings.length_aggregation, lengths_MS, chosen_MS, judged.longest)
        return Credit(weight_MS.new_ones(weight_MS.shape), weight_MS, chosen_MS.float(), source_MS)

    def imitate_last(self, judged: Judged, chosen_N: Tensor) -> Credit:
        """The same for some trajectories' last attempts."""
        chosen_NT = chosen_N.new_zeros(judged.correct_NT.shape)
        chosen_NT[:, -1] = chosen_N
        return self.imitate(judged, chosen_NT, judged.lengths_NT)
