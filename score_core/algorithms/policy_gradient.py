"""REINFORCE on an `Objective`: the part that on-policy methods have in common."""

from __future__ import annotations

from typing import Any

from score_core.config.training import Training
from score_core.rl.advantages import MovingAverage, advantages
from score_core.rl.algorithm import Algorithm, Credit, Judged
from score_core.rl.objective import Objective, kl_penalties, token_weights


class PolicyGradient(Algorithm):
    """Maximises `objective` with the baselines and the length aggregation of the settings."""

    def __init__(self, settings: Training, objective: Objective) -> None:
        super().__init__(settings)
        self.objective = objective
        self.moving_average = MovingAverage()

    @property
    def kl_weight(self) -> tuple[float, ...]:
        """The objective's."""
        return self.objective.kl_weight

    def credit(self, judged: Judged) -> Credit:
        """Returns of the objective against the settings' baselines."""
        settings = self.settings
        returns_NT = self.objective.returns(judged.rewards_NT, ~judged.changed_NT)
        if judged.reference_logp_NT is not None:
            penalties_NT = kl_penalties(self.objective, judged.logp_NT, judged.reference_logp_NT)
            returns_NT = returns_NT - penalties_NT
        advantage_NT = advantages(
            returns_NT,
            judged.correct_NT,
            judged.group_N,
            # Who took a turn is settled before it, so a baseline of those alone is as unbiased.
            judged.sampled_NT & judged.held_NT,
            settings.baseline,
            settings.baseline_later,
            self.moving_average,
        )
        weight_NT = token_weights(
            settings.length_aggregation, judged.lengths_NT, judged.sampled_NT, judged.longest
        )
        return Credit(advantage_NT, weight_NT, returns_NT)

    def state_dict(self) -> dict[str, Any]:
        """The moving average."""
        return {"moving_average": self.moving_average.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """JSON has made text of the attempts' numbers."""
        self.moving_average.mean = {int(key): mean for key, mean in state["moving_average"].items()}
