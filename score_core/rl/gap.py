"""The gap between the policy that sampled a token and the one that is trained on it.

The engine's log-probabilities are of its own computation: another program, precision or order of sums.
Small differences are corrected by importance weights; large ones mean that another policy is scored than the
one that sampled, which would otherwise train on in silence: a layer that only one of the two applies,
weights that did not reach a server, a wrong temperature.
"""

import torch
from accelerate import Accelerator
from torch import Tensor

from score_core.errors import UserError


def importance_weights(logp_P: Tensor, sampled_logp_P: Tensor, cap: float | None) -> Tensor:
    """pi(token) / q(token) of the sampled tokens, at most `cap`, without gradient; 1 where the two are equal.

    q is what was sampled from. Truncated, so that no token weighs more than `cap` times (Ionides, 2008).

    Args:
        cap: None weighs all alike.
    """
    if cap is None:
        return torch.ones_like(logp_P)
    return (logp_P.detach() - sampled_logp_P).exp().clamp(max=cap)


def attempt_ratios(
    logp_P: Tensor, sampled_logp_P: Tensor, row_P: Tensor, column_P: Tensor, cap: float
) -> Tensor:
    """pi(attempt, here) / pi(attempt, there) of the attempt that each token belongs to, at most `cap`.

    Here is the dialogue that the policy now scores, there the one that the attempt was sampled in. Whole
    attempts, since a token's own ratio leaves out how likely the ones before it are here. No gradient.

    Args:
        row_P, column_P: which dialogue and attempt a token belongs to; attempts are complete.
    """
    shape = int(row_P.max()) + 1, int(column_P.max()) + 1
    sums_NT = logp_P.new_zeros(shape).index_put_(
        (row_P, column_P), logp_P.detach() - sampled_logp_P, accumulate=True
    )
    return sums_NT.exp().clamp(max=cap)[row_P, column_P]


class GapMonitor:
    """The gap of one step, summed over its micro-batches, and whether it can be trained on.

    Args:
        tolerated: nats a token, in the mean over the step.
        cap: of the importance weights, or None.
        engine: its name, for the message.
        accelerator: of the processes that share the step.
    """

    def __init__(self, tolerated: float, cap: float | None, engine: str, accelerator: Accelerator) -> None:
        self.tolerated, self.cap, self.engine, self.accelerator = tolerated, cap, engine, accelerator
        self._sums_4 = torch.zeros(4, device=accelerator.device)  # tokens, their gaps, weights, capped ones
        self._largest = torch.zeros((), device=accelerator.device)

    def add(self, logp_P: Tensor, sampled_logp_P: Tensor, trained_P: Tensor) -> Tensor:
        """Takes a micro-batch's tokens; returns their importance weights (P,).

        Args:
            logp_P: the trainer's.
            sampled_logp_P: the engine's.
            trained_P: False where a token was given and not sampled: it has neither gap nor weight.
        """
        weight_P = importance_weights(logp_P, sampled_logp_P, self.cap)
        gap_P = (logp_P.detach() - sampled_logp_P).abs()[trained_P]
        used_P = weight_P[trained_P]
        capped = (used_P >= self.cap).sum() if self.cap is not None else used_P.new_zeros(())
        self._sums_4 += torch.stack([gap_P.new_tensor(len(gap_P)), gap_P.sum(), used_P.sum(), capped])
        if len(gap_P):
            self._largest = torch.maximum(self._largest, gap_P.max())
        return weight_P

    def check(self, step: int) -> dict[str, float]:
        """The step's figures: `gap_mean`, `gap_max`, `weight_mean`, `weight_capped`; all processes must call.

        Args:
            step: how many updates there were before.

        Raises:
            UserError: the gap is larger than tolerated.
        """
        tokens, gaps, weights, capped = self.accelerator.reduce(self._sums_4, reduction="sum").tolist()
        tokens = max(tokens, 1)
        largest = self.accelerator.gather(self._largest[None]).max().item()
        # Not-a-number is somebody else's to say: it passes here, and ends with the loss.
        if gaps / tokens > self.tolerated:
            when = f"after step {step}" if step else "at the first step, before any update"
            raise UserError(
                f"training.max_gap: {when} engine {self.engine} and trainer differ by {gaps / tokens:.2g} "
                f"nats a token in the mean, {largest:.2g} at most; expected a mean of {self.tolerated:g} at "
                "most, or another policy is trained than the one that sampled. Nothing is published, and "
                "checkpoints stay. Use a model family that leaves its logits alone behind the output layer "
                "(no caps, no scales), or another engine; raise max_gap only if you know its cause."
            )
        figures = {"gap_mean": gaps / tokens, "gap_max": largest}
        if self.cap is not None:
            figures |= {"weight_mean": weights / tokens, "weight_capped": capped / tokens}
        return figures
