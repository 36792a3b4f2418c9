"""What a run of training is made of, beside its two models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rl.algorithm import Algorithm
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines import Engine


@dataclass(frozen=True)
class Stage:
    """One run of training.

    Attributes:
        name: separates its random numbers from others'.
        seed: what they are derived from.
        algorithm: the method, with the stage's settings.
        conversation: what is said in a dialogue.
        grader: judges attempts.
        problems: what is trained on.
        validation: what is answered greedily now and then.
        engine: samples.
        sampling_batch_size: trajectories sampled side by side; changes no result.
    """

    name: str
    seed: int
    algorithm: Algorithm
    conversation: Conversation
    grader: Grader
    problems: Sequence[Problem]
    validation: Sequence[Problem]
    engine: Engine
    sampling_batch_size: int

    @property
    def settings(self) -> Any:
        """The algorithm's settings."""
        return self.algorithm.settings
