"""SCoRe (arXiv 2409.12917): two stages of multi-turn RL. The symbols are the paper's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, model_validator

from score_core.algorithms.policy_gradient import PolicyGradient
from score_core.config.section import NonNegative, Positive, Probability, Section
from score_core.config.training import Training
from score_core.rl.algorithm import Credit, Judged
from score_core.rl.objective import stage_one, stage_two

log = logging.getLogger(__name__)


class AdaptiveBeta2(Section):
    """A controller that holds the first attempt's KL at a target by moving `beta2`."""

    target_kl: Positive  # nats a trajectory's first attempt
    horizon: Positive  # steps over which an error is answered


class StageOneSettings(Training):
    """Stage I (Eq. 3): reward the last attempt, hold the others to the base model."""

    beta2: NonNegative
    reward_others: (
        NonNegative  # what earlier attempts' own rewards count; 0 in the paper, 1 in other programs
    )
    adaptive_beta2: AdaptiveBeta2 | None
    takeoff_delta: Probability  # a validation delta below this at the end brings a warning

    @model_validator(mode="after")
    def _adaptive_beta2_has_a_start(self) -> StageOneSettings:
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
    allow_paid_failure: bool  # permits (alpha + mend - keep) * gamma > 1

    # Beyond the paper; off at 1, 1, 0 and null. With gamma = 0 only unequal weights are new: equal ones of
    # 1 + a have the gradient of alpha = a.
    mend: NonNegative  # what a later attempt's own reward counts after a wrong one
    keep: NonNegative  # and after a right one
    repeat: NonNegative  # what it costs to answer the same after a wrong attempt
    recombine: (
        Annotated[float, Field(ge=1)] | None
    )  # cap of the ratio (recombination.py); null: only as sampled

    @model_validator(mode="after")
    def _failing_first_does_not_pay(self) -> StageTwoSettings:
        # Where attempt 2 is right, a wrong first attempt earns it mend, and a right one keep.
        price = (self.alpha + max(0.0, self.mend - self.keep)) * self.gamma
        if price > 1 and not self.allow_paid_failure:
            named = "alpha" if self.mend <= self.keep else "(alpha + mend - keep)"
            raise ValueError(
                f"{named} * gamma is {price:g}, more than 1: attempt 1 would be credited "
                f"r1 * (1 - {named} * gamma) + ..., that is, paid to fail; lower {named} or gamma, or set "
                "allow_paid_failure: true if this is the experiment"
            )
        return self

    @model_validator(mode="after")
    def _recombination_is_possible(self) -> StageTwoSettings:
        if self.recombine is None:
            return self
        if self.attempts != 2 or self.samples_per_prompt == 1:
            raise ValueError(
                "recombine: pairs first and second attempts of a prompt's trajectories; needs attempts: 2 "
                f"and samples_per_prompt of at least 2, found {self.attempts} and {self.samples_per_prompt}; "
                "set them so, or recombine: null"
            )
        if self.kl_estimator == "k1_in_reward" or self.repeat or self.gamma:
            raise ValueError(
                "recombine: a pair that was never sampled has no k1_in_reward, no repeat and no gamma of its "
                "own; use exact, k2_in_loss or k3_in_loss, repeat: 0 and gamma: 0, or recombine: null"
            )
        return self


class StageOne(PolicyGradient):
    """Stage I (Eq. 3): rewards the last attempt, and holds the others to the reference by `beta2`.

    With T > 2 attempts this takes T - 1 phases: phase t rewards attempt t + 1 and holds attempts 1 to t
    to the model of the phase before (the base model, in the first).
    """

    Settings = StageOneSettings
    moves_reference = True

    def __init__(self, settings: StageOneSettings) -> None:
        paper = stage_one(settings.attempts, settings.beta1, settings.beta2)
        weights = (*[settings.reward_others] * (settings.attempts - 1), 1.0)
        super().__init__(settings, replace(paper, reward_weight=weights))

    def phases(self) -> list[StageOne]:
        """One for each number of attempts from 2 on."""
        counts = range(2, self.attempts + 1)
        return [StageOne(self.settings.model_copy(update={"attempts": count})) for count in counts]

    def observe(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Adaptive beta2: proportional control of the first attempt's KL, after Ziegler et al., 1909.08593.

        beta2 <- beta2 (1 + error / horizon), error = KL / target - 1 clipped to +-0.2.
        """
        adaptive = self.settings.adaptive_beta2
        if adaptive is None:
            return {}
        in_force = self.kl_weight[0]
        error = min(max(figures["kl_t1"] / adaptive.target_kl - 1, -0.2), 0.2)
        self._set_beta2(in_force * (1 + error / adaptive.horizon))
        return {"beta2": in_force}

    def assess(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Whether it took off; if not, Stage II has nothing to build on, and a warning says so."""
        delta, least = summary["validation_delta"], self.settings.takeoff_delta
        if delta < least:
            log.warning(
                "Stage I has not taken off: the validation delta is %+.1f points, below takeoff_delta = "
                "%.1f. Stage II will hardly find corrections to reward. Give stage1.steps more, or a base "
                "model that at least sometimes corrects when sampled.",
                100 * delta,
                100 * least,
            )
        return {"took_off": delta >= least}

    def state_dict(self) -> dict[str, Any]:
        """With the coefficient in force."""
        return {**super().state_dict(), "beta2": self.kl_weight[0]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it up again."""
        super().load_state_dict(state)
        self._set_beta2(state["beta2"])

    def _set_beta2(self, beta2: float) -> None:
        *others, last = self.kl_weight
        self.objective = replace(self.objective, kl_weight=(*[beta2] * len(others), last))


class StageTwo(PolicyGradient):
    """Stage II (Eq. 4): rewards every attempt, and progress from one to the next by `alpha`."""

    Settings = StageTwoSettings

    def __init__(self, settings: StageTwoSettings) -> None:
        paper = stage_two(settings.attempts, settings.beta1, settings.alpha, settings.gamma)
        objective = replace(paper, mend=settings.mend, keep=settings.keep, repeat=settings.repeat)
        super().__init__(settings, objective)
        self.dialogues = 1 if settings.recombine is None else 2

    def credit(self, judged: Judged) -> Credit:
        """As ever, and with `recombine` of twice as many dialogues."""
        credit, settings = super().credit(judged), self.settings
        if settings.recombine is None:
            return credit
        from score_core.algorithms.recombination import recombined  # loads torch: see objective.py

        return recombined(credit, judged, self.objective, settings.samples_per_prompt, settings.recombine)
