"""What the trainer asks of a method. Methods themselves are in `score_core/algorithms/`.

    problems -> `attempts` sampled and judged -> `credit` -> one optimiser step -> `observe`

The trainer samples and scores; which attempts there are, which dialogues are made of them, what their tokens
weigh, their advantage and their KL's coefficient is the method's to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from score_core.config.training import Training

if TYPE_CHECKING:  # see objective.py
    from torch import Tensor


@dataclass(frozen=True)
class Judged:
    """A step's N trajectories of T attempts, over all processes, those of a prompt together.

    Where the policy verifies, T counts its verdicts too: attempt, verdict, attempt. A verdict is correct, and
    earns 1, where it says what is so; an attempt that did not take place has what the one before it has.

    Attributes:
        group_N: the prompt's number.
        rewards_NT: r, raw rewards.
        correct_NT: whether the verifier accepts the attempt.
        changed_NT: whether an attempt's answer is another than the one before it, (N, T - 1).
        lengths_NT: sampled tokens.
        sampled_NT: False where an attempt was given and not sampled from the policy.
        logp_NT: log-probability of each attempt under the policy, in nats, as sampled.
        reference_logp_NT: the same under the reference; None unless the KL goes into the reward.
        longest: most tokens that an attempt can have.
    """

    group_N: Tensor
    rewards_NT: Tensor
    correct_NT: Tensor
    changed_NT: Tensor
    lengths_NT: Tensor
    sampled_NT: Tensor
    logp_NT: Tensor
    reference_logp_NT: Tensor | None
    longest: int

    @property
    def held_NT(self) -> Tensor:
        """Whether it took place: a dialogue with verdicts ends where the policy ends it."""
        return self.lengths_NT > 0


@dataclass(frozen=True)
class Credit:
    """What the loss takes from a method, for the dialogues that are trained on.

    These are the N trajectories of a `Judged`, or others that are put together from their attempts: M = N *
    `Algorithm.dialogues` of S = `Algorithm.turns` attempts each, those of a trajectory next to each other;
    S counts verdicts where T does.

    Attributes:
        advantage_MS: A; carries no gradient.
        weight_MS: what one token of the attempt weighs; 0 leaves it out. Normalised over the step.
        returns_MS: R, what the advantages come from; only logged.
        source_MS: which of the N * T attempts, row after row, stands there; all of a dialogue are answers to
            one prompt. None: the trajectories as they were sampled.
        ratio_cap: an attempt that stands in another place than where it was sampled counts pi(it, here) /
            pi(it, there) times, this many at most. None: once, as in supervised training.
    """

    advantage_MS: Tensor
    weight_MS: Tensor
    returns_MS: Tensor
    source_MS: Tensor | None = None
    ratio_cap: float | None = None


class Algorithm(ABC):
    """One method, for one run of training: frozen settings, and what it keeps from step to step."""

    Settings: ClassVar[type[Training]] = Training
    # Whether the model that training starts from is sampled, and not the policy as it changes.
    samples_start: ClassVar[bool] = False
    # Whether a later phase is held to the model of the phase before, and not to the reference of the first.
    moves_reference: ClassVar[bool] = False
    dialogues: int = 1  # trained on for each trajectory

    def __init__(self, settings: Training) -> None:
        self.settings: Any = settings

    @property
    def attempts(self) -> int:
        """T, how many attempts are sampled."""
        return int(self.settings.attempts)

    @property
    def turns(self) -> int:
        """S, how many attempts a dialogue that is trained on has."""
        return self.attempts

    @property
    def longest(self) -> int:
        """How many attempts the longest dialogue has: validation always asks for a correction."""
        return max(2, self.turns)

    def parts(self, problems: int) -> Sequence[range]:
        """Which of so many problems are trained on, in parts one after another, each for as many steps."""
        return [range(problems)]

    @property
    @abstractmethod
    def kl_weight(self) -> tuple[float, ...]:
        """What a nat of each attempt's KL to the reference costs in the next step, for S attempts."""

    @abstractmethod
    def credit(self, judged: Judged) -> Credit:
        """What each attempt's tokens weigh in the loss, and their advantage."""

    def phases(self) -> Sequence[Algorithm]:
        """The runs of training it takes, each from the model of the one before."""
        return [self]

    def observe(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Called after each step with what it logs; returns what is to be logged beside it."""
        return {}

    def assess(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Looks at the finished run's summary; returns what is to be added to it."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints must hold of it, as JSON."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most keep nothing
        """Takes up what `state_dict` gave."""
