"""What an optimiser step is made of: its problems, its micro-batches, its learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_core.config.training import Training
from score_core.errors import UserError
from score_core.rollout.trajectories import Trajectories
from score_core.seeding import stream


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward needs; everything is fixed before the step's first.

    Attributes:
        trajectories: N of the dialogues that the step trains on.
        advantage_NT: A, without gradient.
        weight_NT: what one token of an attempt weighs in the step's loss.
        own_NT: whether the attempt was sampled where it stands, from the policy.
    """

    trajectories: Trajectories
    advantage_NT: Tensor
    weight_NT: Tensor
    own_NT: Tensor


class PromptSchedule:
    """Which problem is at which position of the run: a fresh permutation for every pass over them.

    Args:
        parts: the problems' indices, in parts that come one after another; each has an equal share of the
            positions.

    Attributes:
        order: for each position, the problem's index.

    Raises:
        UserError: a part is empty.
    """

    def __init__(self, parts: Sequence[range], positions: int, seed: int, name: str) -> None:
        self.order: list[int] = []
        number = 0
        for at, part in enumerate(parts, start=1):
            if not part:
                raise UserError(
                    f"{name}: part {at} of the {len(parts)} parts of the training problems holds none; "
                    "expected one at least in each; prepare more of them (data.sizes.train), or divide them "
                    f"into fewer parts ({name}.of)."
                )
            end = positions * at // len(parts)
            while len(self.order) < end:
                passed = stream(seed, name, "order", number).permutation(len(part))
                self.order += (part.start + passed)[: end - len(self.order)].tolist()
                number += 1


def split(step: MicroBatch, count: int, share_prompts: bool) -> list[MicroBatch]:
    """`count` micro-batches of about as many tokens each, padding included; like lengths together.

    Args:
        share_prompts: those of a prompt stay next to each other, at the place of the longest of them.
    """
    lengths_N = step.trajectories.attention_mask_NL.sum(-1)
    if share_prompts:
        prompts = [tuple(pieces[0][0]) for pieces in step.trajectories.segments]
        longest: dict[tuple[int, ...], int] = {}
        for prompt, length in zip(prompts, lengths_N.tolist(), strict=True):
            longest[prompt] = max(length, longest.get(prompt, 0))
        lengths_N = lengths_N.new_tensor([longest[prompt] for prompt in prompts])
    order = torch.argsort(lengths_N, stable=True)
    return [
        MicroBatch(
            step.trajectories.select(rows.tolist()),
            step.advantage_NT[rows],
            step.weight_NT[rows],
            step.own_NT[rows],
        )
        for rows in order.split(token_balanced(lengths_N[order].tolist(), count))
    ]


def token_balanced(lengths: Sequence[int], count: int) -> list[int]:
    """Sizes of `count` parts of a sorted list whose largest, as a padded rectangle, is as small as can be.

    Args:
        lengths: of the rows, ascending; at least `count`.
    """

    def sizes(most: int) -> list[int]:
        # From the long end, where a part's width is that of its first row; nothing narrower comes later.
        found, left = [], len(lengths)
        while left:
            found.append(min(left, max(1, most // lengths[left - 1])))
            left -= found[-1]
        return found[::-1]

    low, high = lengths[-1], lengths[-1] * len(lengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(sizes(middle)) <= count else (middle + 1, high)
    found = sizes(low)
    # Fewer than asked for would do, and all processes need equally many: halves of the largest.
    while len(found) < count:
        at = max(range(len(found)), key=found.__getitem__)
        found[at : at + 1] = [found[at] // 2, found[at] - found[at] // 2]
    return found


def learning_rate_share(step: int, settings: Training) -> float:
    """The learning rate of the optimiser step after `step` others, as a share of the settings'."""
    warmup = min(settings.warmup_steps, settings.steps - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)  # not from 0, which would waste a step's samples
    left = max(0.0, 1 - (step - warmup) / (settings.steps - warmup))
    last = settings.learning_rate * settings.final_learning_rate
    return ((settings.learning_rate - last) * left + last) / settings.learning_rate
