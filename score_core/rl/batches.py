"""What an optimiser step is made of: its problems, its micro-batches, its learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from score_core.config.training import Training
from score_core.problems import Problem
from score_core.rollout.trajectories import Trajectories
from score_core.seeding import stream


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward needs; everything is fixed before the step's first.

    Attributes:
        trajectories: N of the step's trajectories.
        advantage_NT: A, without gradient.
        weight_NT: what one token of an attempt weighs in the step's loss.
    """

    trajectories: Trajectories
    advantage_NT: Tensor
    weight_NT: Tensor


class PromptSchedule(torch.utils.data.Dataset[int]):
    """Which problem is at which position of the run: a fresh permutation for every pass over them."""

    def __init__(self, problems: Sequence[Problem], positions: int, seed: int, name: str) -> None:
        passes = range(-(-positions // len(problems)))
        order = [stream(seed, name, "order", number).permutation(len(problems)) for number in passes]
        self.order: list[int] = np.concatenate(order)[:positions].tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> int:
        """The position itself: it also names the random numbers used there."""
        return position


def split(
    trajectories: Trajectories, advantage_NT: Tensor, weight_NT: Tensor, count: int
) -> list[MicroBatch]:
    """`count` micro-batches of equally many trajectories, like lengths together to save padding."""
    order = torch.argsort(trajectories.attention_mask_NL.sum(-1), stable=True)
    return [
        MicroBatch(trajectories.select(rows.tolist()), advantage_NT[rows], weight_NT[rows])
        for rows in order.chunk(count)
    ]


def learning_rate_share(step: int, settings: Training) -> float:
    """The learning rate of the optimiser step after `step` others, as a share of the settings'."""
    warmup = min(settings.warmup_steps, settings.steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)  # not from 0, which would waste a step's samples
    left = max(0.0, 1 - (step - warmup) / (settings.steps - warmup))
    last = settings.learning_rate * settings.final_learning_rate
    return ((settings.learning_rate - last) * left + last) / settings.learning_rate
