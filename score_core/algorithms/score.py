"""SCoRe (arXiv 2409.12917): two stages of multi-turn RL. The symbols are the paper's."""

from pydantic import model_validator

from score_core.config.section import NonNegative, Positive, Probability, Section
from score_core.config.training import Training


class AdaptiveBeta2(Section):
    """A controller that holds the first attempt's KL at a target by moving `beta2`."""

    target_kl: Positive  # nats a trajectory's first attempt
    horizon: Positive  # steps over which an error is answered


class StageOneSettings(Training):
    """Stage I (Eq. 3): reward the last attempt, hold the others to the base model."""

    beta2: NonNegative
    adaptive_beta2: AdaptiveBeta2 | None
    takeoff_delta: Probability  # a validation delta below this at the end brings a warning

    @model_validator(mode="after")
    def _adaptive_beta2_has_a_start(self) -> "StageOneSettings":
        if self.adaptive_beta2 is not None and self.beta2 == 0:
            raise ValueError("adaptive_beta2 scales beta2, and beta2 is 0; give it a positive start")
        if self.adaptive_beta2 is not None and self.kl_estimator == "k1_in_reward":
            raise ValueError(
                "adaptive_beta2 with k1_in_reward would change rewards inside a step; use exact, "
                "k2_in_loss or k3_in_loss"
            )
        return self


class StageTwoSettings(Training):
    """Stage II (Eq. 4): reward every attempt, and progress from one to the next by `alpha`."""

    alpha: NonNegative
    gamma: Probability  # the share of the next attempt's return that an attempt is credited
    allow_paid_failure: bool  # permits alpha * gamma > 1

    @model_validator(mode="after")
    def _failing_first_does_not_pay(self) -> "StageTwoSettings":
        if self.alpha * self.gamma > 1 and not self.allow_paid_failure:
            raise ValueError(
                f"alpha * gamma is {self.alpha * self.gamma:g}, more than 1: attempt 1 would be credited "
                "r1 * (1 - alpha * gamma) + ..., that is, paid to fail; lower alpha or gamma, or set "
                "allow_paid_failure: true if this is the experiment"
            )
        return self
