"""Recombination: each first attempt also with the second one of another trajectory of its prompt.

    1/2 A(y1_i, y2_i) log pi(y2_i | y1_i)  +  1/2 rho A(y1_i, y2_j) log pi(y2_j | y1_i),
    rho = pi(y2_j | y1_i) / pi(y2_j | y1_j), at most `cap`

The trainer computes rho from the log-probability that y2_j was sampled with. Without the cap both terms
estimate the same gradient, so their mean does; the cap trades some of that for a bound on a term's weight.
"""

import torch

from score_core.rl.algorithm import Credit, Judged
from score_core.rl.objective import Objective


def recombined(credit: Credit, judged: Judged, objective: Objective, samples: int, cap: float) -> Credit:
    """`credit` of two-attempt trajectories, with a second dialogue for each of them.

    Its baseline is the mean of what y1_i and the second attempts of the others, all but y2_j, would earn:
    given the first attempts these are independent of y2_j.

    Args:
        samples: K; a prompt's trajectories are next to each other.
    """
    rewards_NT = judged.rewards_NT
    count = len(rewards_NT)
    row_N = torch.arange(count, device=rewards_NT.device)
    next_N = row_N.view(-1, samples).roll(-1, dims=1).flatten()
    # What first attempt i and second attempt k of its group would earn, (N, K).
    seconds_NK = rewards_NT[:, 1].view(-1, samples).repeat_interleave(samples, dim=0)
    pairs = torch.stack([rewards_NT[:, :1].expand(-1, samples), seconds_NK], dim=-1)
    returns_NK = objective.returns(pairs.reshape(-1, 2))[:, 1].view(count, samples)
    at_N1 = (next_N % samples)[:, None]
    return_N = returns_NK.gather(1, at_N1).squeeze(1)
    others_N = returns_NK.scatter(1, at_N1, 0.0).sum(1) / (samples - 1)
    nothing_N = torch.zeros_like(return_N)

    halved_NT = credit.weight_MS / credit.weight_MS.new_tensor([1.0, 2.0])
    mixed_NT = halved_NT * halved_NT.new_tensor([0.0, 1.0])
    return Credit(
        _interleaved(credit.advantage_MS, torch.stack([nothing_N, return_N - others_N], dim=1)),
        _interleaved(halved_NT, mixed_NT),
        _interleaved(credit.returns_MS, torch.stack([credit.returns_MS[:, 0], return_N], dim=1)),
        _interleaved(
            torch.stack([2 * row_N, 2 * row_N + 1], dim=1), torch.stack([2 * row_N, 2 * next_N + 1], dim=1)
        ),
        cap,
    )


def _interleaved(own_NT: torch.Tensor, mixed_NT: torch.Tensor) -> torch.Tensor:
    """Row after row one of each, (2 N, T)."""
    return torch.stack([own_NT, mixed_NT], dim=1).flatten(0, 1)
