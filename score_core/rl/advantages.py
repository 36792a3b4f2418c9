"""Advantages: each attempt's return against a baseline, chosen by name.

A baseline may use anything but the actions it is subtracted from; then it changes the gradient's
variance and not its expectation. Shapes: N trajectories, T attempts; `group_N` says which prompt a
trajectory belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from score_core.config.training import Baseline

if TYPE_CHECKING:  # see objective.py
    import torch
    from torch import Tensor


@dataclass
class MovingAverage:
    """The running mean of each attempt's return over past steps; part of the training state."""

    decay: float = 0.9
    mean: dict[int, float] = field(default_factory=dict)

    def subtract(self, attempt: int, returns_N: Tensor) -> Tensor:
        """Subtracts the mean of *earlier* steps (none: 0), then takes this step in."""
        seen = self.mean.get(attempt)
        batch = float(returns_N.mean())
        self.mean[attempt] = batch if seen is None else self.decay * seen + (1 - self.decay) * batch
        return returns_N - (0.0 if seen is None else seen)


def advantages(
    returns_NT: Tensor,
    correct_NT: Tensor,
    group_N: Tensor,
    sampled_NT: Tensor,
    first: Baseline,
    later: Baseline,
    moving_average: MovingAverage,
) -> Tensor:
    """Advantages (N, T) of a whole step, over all processes.

    Args:
        returns_NT: R, shaped returns.
        correct_NT: whether the verifier accepts the attempt; an earlier outcome may inform a later baseline.
        group_N: the prompt's number.
        sampled_NT: False where an attempt was given, not sampled; it gets 0 and is in no baseline.
        first, later: baselines of attempt 1 and of every later attempt.
    """
    result_NT = returns_NT.new_zeros(returns_NT.shape)
    for attempt in range(1, returns_NT.shape[1] + 1):
        column = attempt - 1
        rows = sampled_NT[:, column].nonzero().squeeze(-1)
        if len(rows) == 0:
            continue
        name = first if attempt == 1 else later
        returns_N, groups_N = returns_NT[rows, column], group_N[rows]
        if name == "moving_average":
            advantage_N = moving_average.subtract(attempt, returns_N)
        elif name == "leave_one_out_given_first":
            advantage_N = _leave_one_out_given(returns_N, groups_N, correct_NT[rows, column - 1])
        else:
            advantage_N = _BASELINES[name](returns_N, groups_N)
        result_NT[rows, column] = advantage_N
    return result_NT


def _plain(returns_N: Tensor, group_N: Tensor) -> Tensor:
    return returns_N


def _group_mean(returns_N: Tensor, group_N: Tensor) -> Tensor:
    """Includes the trajectory itself, which scales the gradient by (K - 1) / K."""
    same_NN = _same(group_N, returns_N.dtype)
    return returns_N - same_NN @ returns_N / same_NN.sum(1)


def _leave_one_out(returns_N: Tensor, group_N: Tensor) -> Tensor:
    """The mean of the prompt's *other* trajectories."""
    others_NN = _same(group_N, returns_N.dtype).fill_diagonal_(0)
    return returns_N - others_NN @ returns_N / others_NN.sum(1).clamp(min=1)


def _group_standardised(returns_N: Tensor, group_N: Tensor) -> Tensor:
    """GRPO's. Dividing by each turn's own deviation cancels most of `alpha`."""
    same_NN = _same(group_N, returns_N.dtype)
    centred_N = _group_mean(returns_N, group_N)
    deviation_N = (same_NN @ centred_N.square() / same_NN.sum(1)).sqrt()
    return centred_N / (deviation_N + 1e-4)


def _leave_one_out_given(returns_N: Tensor, group_N: Tensor, outcome_N: Tensor) -> Tensor:
    """The mean of the prompt's others whose attempt before had the same outcome, right or wrong.

    Not the same reward: where that is graded hardly two are equal, and nobody would have a baseline.

    Where there is no such other, the mean over the whole batch's others with that outcome; where there
    is none either, nothing is subtracted. Which of them applies depends on earlier attempts only, so the
    estimate stays unbiased, and what being right before contributes to R_t, noise here, is taken out.
    """
    alike_NN = _same(outcome_N, returns_N.dtype).fill_diagonal_(0)
    in_group_NN = alike_NN * _same(group_N, returns_N.dtype)
    others_NN = in_group_NN.where(in_group_NN.sum(1, keepdim=True) > 0, alike_NN)
    return returns_N - others_NN @ returns_N / others_NN.sum(1).clamp(min=1)


def _same(label_N: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where two rows carry the same label, (N, N)."""
    return (label_N[:, None] == label_N[None, :]).to(dtype)


_BASELINES = {
    "none": _plain,
    "group_mean": _group_mean,
    "leave_one_out": _leave_one_out,
    "group_standardised": _group_standardised,
}
