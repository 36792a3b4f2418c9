"""The section `training`: what all stages of training share.

Any further top-level section with the key `algorithm` is a stage. It is laid over `training`, and the
settings class of its algorithm, a subclass of `Training`, validates the result.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from score_core.config.section import Count, Natural, NonNegative, Positive, Probability, Section

Baseline = Literal[
    "leave_one_out",
    "leave_one_out_given_first",
    "group_mean",
    "group_standardised",
    "moving_average",
    "none",
]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a moving average
KLEstimator = Literal["exact", "k1_in_reward", "k2_in_loss", "k3_in_loss"]
LengthAggregation = Literal["sequence_sum", "sequence_mean", "token_mean", "constant"]
# reproducible: what samples (`engine` in runtime.yaml) has to give the same bits whenever it is asked the
# same; any: it need not, so that a server may, which samples larger models and many more tokens a second.
Sampling = Literal["reproducible", "any"]


class Training(Section):
    """What every algorithm's settings have; an algorithm adds its own keys in a subclass."""

    algorithm: str  # a key of score_core.algorithms.ALGORITHMS
    verifies: ClassVar[bool] = False  # whether the model judges its own attempts, as in `Evaluation`

    steps: Count  # optimiser steps
    attempts: Annotated[int, Field(ge=2, le=10)]
    prompts_per_step: Count
    samples_per_prompt: Count  # K
    temperature: Positive
    sampling: Sampling

    learning_rate: Positive
    warmup_steps: Natural
    final_learning_rate: Probability  # as a share of learning_rate; the decay is linear
    adam_betas: tuple[Decay, Decay]
    weight_decay: NonNegative
    max_grad_norm: Positive

    # Where the engine's and the trainer's log-probabilities of a token differ (score_core/rl/gap.py):
    max_gap: Positive | None  # nats a token, in a step's mean, above which training stops; null: by the dtype
    importance_cap: Annotated[float, Field(ge=1)] | None  # of a token's importance weight; null: no weights
    share_prompts: bool  # scoring reads a prompt that several trajectories have once

    beta1: NonNegative  # the KL's coefficient at ordinary attempts
    kl_estimator: KLEstimator
    baseline: Baseline  # of attempt 1
    baseline_later: Baseline  # of every later attempt
    length_aggregation: LengthAggregation
    offline_first_attempts: Probability  # share of prompts whose y1 comes from the base model

    validate_every: Count  # steps between evaluations on validation problems
    validation_problems: Count
    select: Literal["last", "validation_accuracy", "training_reward"]  # weights to keep

    @model_validator(mode="after")
    def _groups_make_sense(self) -> "Training":
        if self.baseline == "leave_one_out_given_first":
            raise ValueError(
                "baseline: leave_one_out_given_first conditions on the first attempt's outcome, which for "
                "attempt 1 is the very reward to be estimated and would cancel it; "
                "use leave_one_out here and keep it for baseline_later"
            )
        if self.samples_per_prompt == 1:
            for key in ("baseline", "baseline_later"):
                if getattr(self, key) not in ("moving_average", "none"):
                    raise ValueError(
                        f"{key}: {getattr(self, key)} compares a prompt's trajectories with one another and "
                        "samples_per_prompt is 1; sample at least 2, or use moving_average or none"
                    )
        return self
