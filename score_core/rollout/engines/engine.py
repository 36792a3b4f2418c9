"""What an engine is: something that samples dialogues from a model's present weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from score_core.config.runtime import Runtime

if TYPE_CHECKING:  # which take seconds to load, and what checks settings or starts processes needs none
    import numpy as np
    import torch
    from transformers import PreTrainedModel

    from score_core.rollout.conversation import Conversation
    from score_core.rollout.trajectories import Segments, TokenLogp

DType = Literal["float32", "bfloat16"]
OnToken = Callable[[int, dict[int, int]], object]  # an attempt, and a token by dialogue
# Nats a token by which an engine's log-probabilities may differ from the trainer's, in the mean over a step.
TOLERATED: dict[DType, float] = {"float32": 1e-4, "bfloat16": 0.02}


@dataclass(frozen=True)
class Request:
    """What is to be sampled: `attempts` attempts for each of the prompts, `samples` times.

    Attributes:
        prompts: ids of the first prompts, of any lengths.
        noise: (N, attempts, M) numbers in [0, 1), N = len(prompts) * samples, a prompt's trajectories
            next to each other. None decodes greedily.
        temperature: divides the logits.
        top_p: keeps the most probable tokens up to this mass; for evaluation only.
        given: first attempts to use instead of sampling them, N lists of ids.
    """

    prompts: Sequence[list[int]]
    attempts: int
    samples: int = 1
    noise: np.ndarray | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    given: Sequence[list[int]] | None = None

    @property
    def count(self) -> int:
        """N, the number of dialogues."""
        return len(self.prompts) * self.samples


@dataclass(frozen=True)
class Sampled:
    """N dialogues of T attempts, those of a prompt next to each other.

    Attributes:
        segments: the pieces of each dialogue, as token ids.
        truncated: truncated[n][t - 1], whether an attempt hit its length limit.
        logp: logp[n][t - 1], log-probability in nats of each token of an attempt, its end token included,
            under the sampled distribution at the temperature asked for; 0 for those of given attempts.
    """

    segments: list[Segments]
    truncated: list[list[bool]]
    logp: list[TokenLogp]


@dataclass(frozen=True)
class Setting:
    """What an engine may need to know of the run that it samples for.

    Attributes:
        runtime: how the stage runs.
        dtype: what the model computes in.
        tolerated: nats a token by which its log-probabilities may differ from the trainer's, in the mean.
    """

    runtime: Runtime
    dtype: DType
    tolerated: float


class Engine(ABC):
    """Samples dialogues; adding one is a file here and a line in `ENGINES`.

    Attributes:
        reproducible: whether equal weights and requests give equal bits, on one machine and one process.
        schedules: whether it takes any number of dialogues at once, and decides itself which go together.
        on_token: called with an attempt, from 1, and the tokens just chosen, by dialogue, for a person who
            waits for them; by engines that choose them in this process. What it raises ends the sampling.
    """

    reproducible: ClassVar[bool] = False
    schedules: ClassVar[bool] = False
    on_token: OnToken | None = None

    @classmethod
    def make(cls, setting: Setting) -> Self:
        """The engine for a run; most need to know nothing of it."""
        return cls()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where trajectories are to be put together."""

    @abstractmethod
    def load(self, model: PreTrainedModel) -> None:
        """Takes the weights to sample from; all of them are there until the next call.

        Every process of the run calls it, also one that then samples nothing.
        """

    @abstractmethod
    def sample(self, conversation: Conversation, request: Request) -> Sampled:
        """Samples what is asked for."""
