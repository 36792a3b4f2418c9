"""The optional controller of Stage I that holds the first attempt's KL at a target."""

from dataclasses import replace

from score_core.rl.objective import Objective


class Beta2Controller:
    """Proportional control of `beta2`, after Ziegler et al., arXiv 1909.08593.

    After each step beta2 <- beta2 (1 + error / horizon), error = KL / target - 1 clipped to +-0.2.

    Args:
        objective: Stage I's; every attempt but the last carries beta2.
        target_kl: nats of the first attempt.
        horizon: steps over which an error is answered.
    """

    def __init__(self, objective: Objective, target_kl: float, horizon: float) -> None:
        self.objective, self.target_kl, self.horizon = objective, target_kl, horizon

    @property
    def beta2(self) -> float:
        """The coefficient in force."""
        return self.objective.kl_weight[0]

    def observe(self, kl: float) -> Objective:
        """Takes in a step's mean KL of the first attempt; returns the objective of the next step."""
        error = min(max(kl / self.target_kl - 1, -0.2), 0.2)
        return self.put(self.beta2 * (1 + error / self.horizon))

    def put(self, beta2: float) -> Objective:
        """Sets the coefficient; returns the objective with it."""
        *others, last = self.objective.kl_weight
        self.objective = replace(self.objective, kl_weight=(*[beta2] * len(others), last))
        return self.objective
