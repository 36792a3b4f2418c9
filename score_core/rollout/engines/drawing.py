"""From logits and uniform numbers to tokens."""

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 128  # of the vocabulary; the usual ones are multiples of it


def choose(logits_NV: Tensor, u_N: Tensor | None, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Picks a token a row, greedily where `u_N` is None; returns tokens (N,) and log-probabilities (N,).

    The token is the first up to which the distribution function exceeds u, so a token without mass is never
    chosen. Sums over a large vocabulary in float32 would misplace rare tokens, and the whole function in
    float64 takes 1.2 MB a row: here only sums of blocks are in float64, and then one block.

    Args:
        u_N: in [0, 1), float64.
        top_p: keeps the most probable tokens up to this mass; log-probabilities are those before it.
    """
    scaled_NV = logits_NV.float()
    if temperature not in (0.0, 1.0):
        scaled_NV = scaled_NV / temperature
    top_N1 = scaled_NV.amax(-1, keepdim=True)
    mass_NV = (scaled_NV - top_N1).exp_()
    total_N1 = mass_NV.sum(-1, keepdim=True, dtype=torch.float64)
    if u_N is None:
        token_N1 = scaled_NV.argmax(-1, keepdim=True)
    else:
        token_N1 = _invert(nucleus(mass_NV / total_N1, top_p) if top_p < 1 else mass_NV, u_N[:, None])
    logp_N1 = scaled_NV.gather(-1, token_N1) - top_N1 - total_N1.log().float()
    return token_N1[:, 0], logp_N1[:, 0]


def nucleus(probability_NV: Tensor, top_p: float) -> Tensor:
    """The most probable tokens up to this mass, and 0 for the others."""
    ordered_NV, order_NV = probability_NV.sort(descending=True, dim=-1)
    ordered_NV[ordered_NV.cumsum(-1) - ordered_NV >= top_p] = 0
    return torch.zeros_like(ordered_NV).scatter(-1, order_NV, ordered_NV)


def _invert(mass_NV: Tensor, u_N1: Tensor) -> Tensor:
    """The tokens (N, 1) at the shares `u_N1` of each row's mass."""
    vocabulary = mass_NV.shape[-1]
    block = min(BLOCK, vocabulary)
    mass_NBb = pad(mass_NV, (0, -vocabulary % block)).unflatten(-1, (-1, block))
    below_NB = mass_NBb.sum(-1, dtype=torch.float64).cumsum(-1)
    at_N1, rest_N1 = _find(below_NB, u_N1 * below_NB[:, -1:])
    mass_Nb = mass_NBb.take_along_dim(at_N1[:, :, None], dim=1)[:, 0]
    within_N1, _ = _find(mass_Nb.double().cumsum(-1), rest_N1)
    return (at_N1 * block + within_N1).clamp(max=vocabulary - 1)


def _find(below_NS: Tensor, target_N1: Tensor) -> tuple[Tensor, Tensor]:
    """The first place (N, 1) whose cumulated mass exceeds the target, and what is left of that there."""
    # Rounding may put the target on the whole mass, or above that of a block, where nothing exceeds it.
    most_N1 = torch.nextafter(below_NS[:, -1:], torch.zeros_like(target_N1))
    target_N1 = torch.minimum(target_N1, most_N1)
    at_N1 = torch.searchsorted(below_NS, target_N1, right=True).clamp(max=below_NS.shape[-1] - 1)
    before_N1 = below_NS.gather(-1, (at_N1 - 1).clamp(min=0)) * (at_N1 > 0)
    return at_N1, target_N1 - before_N1
