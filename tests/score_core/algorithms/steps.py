"""Judged steps, written down by hand."""

import torch

from score_core.rl.algorithm import Judged


def judged(
    rewards: list[list[float]], given: bool = False, prompts: int = 1, lengths: list[list[int]] | None = None
) -> Judged:
    """Trajectories of some prompts, as many of each; right where they earn, of two tokens by default."""
    rewards_NT = torch.tensor(rewards)
    sampled_NT = torch.ones_like(rewards_NT, dtype=torch.bool)
    sampled_NT[:, 0] = not given
    return Judged(
        group_N=torch.arange(prompts).repeat_interleave(len(rewards) // prompts),
        rewards_NT=rewards_NT,
        correct_NT=rewards_NT > 0,
        changed_NT=rewards_NT.diff(dim=1) != 0,
        lengths_NT=torch.full(rewards_NT.shape, 2) if lengths is None else torch.tensor(lengths),
        sampled_NT=sampled_NT,
        logp_NT=torch.full(rewards_NT.shape, -1.0),
        reference_logp_NT=None,
        longest=5,
    )
