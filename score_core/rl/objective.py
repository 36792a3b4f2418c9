"""The objective of SCoRe: Eq. 2-4 of arXiv 2409.12917, and nothing else.

A prompt x is answered T times, y1, ..., yT, each attempt seeing the ones before it; r_t in [0, 1] is the
verifier's reward of attempt t, and pi_ref is the base model in both stages.

    base (Eq. 2)      max E[ r(y_t) - beta1 KL(pi || pi_ref) ]
    Stage I (Eq. 3)   max E[ r(y2) - beta2 KL_1 - beta1 KL_2 ]
    Stage II (Eq. 4)  max E[ r(y1) + r(y2) + alpha (r(y2) - r(y1)) - beta1 (KL_1 + KL_2) ]

Both stages are one `Objective`: which attempts are rewarded, how progress is, and what each attempt's
KL costs. An attempt's tokens carry the return of that attempt alone (plus a share `gamma` of the next
one's; 0 in the paper). The loss whose gradient estimates the objective's is

    loss = - 1/N sum_i sum_t  A_it log pi(y_it | x_it)  +  sum_t beta_t KL_t

with A_it = R_it - baseline (`advantages.py`), on samples of the current policy.

Shapes: N trajectories, T attempts, P sampled tokens of a batch put end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from score_core.config.training import KLEstimator, LengthAggregation

if TYPE_CHECKING:  # algorithms are read with every params.yaml, also where nothing is trained
    from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """What one stage maximises.

    Attributes:
        reward_weight: w_t, how much attempt t's own reward counts.
        kl_weight: beta_t, what a nat of attempt t's KL to the reference costs.
        alpha: what progress r_t - r_{t-1} counts for every later attempt.
        gamma: the share of the next attempt's return credited to an attempt.
        mend, keep: not the paper's; a later attempt's own reward counts so much after a wrong or a right one.
        repeat: not the paper's; the price of answering the same after a wrong attempt.
    """

    reward_weight: tuple[float, ...]
    kl_weight: tuple[float, ...]
    alpha: float = 0.0
    gamma: float = 0.0
    mend: float = 1.0
    keep: float = 1.0
    repeat: float = 0.0

    def returns(self, rewards_NT: Tensor, repeated_NT: Tensor | None = None) -> Tensor:
        """R (N, T) = w_t r_t + alpha (r_t - r_{t-1}) + gamma R_{t+1}; `repeat` asks for [a_t = a_{t-1}]."""
        weight_T = rewards_NT.new_tensor(self.reward_weight)
        returns_NT = rewards_NT * weight_T
        before_NT = rewards_NT[:, :-1]
        if (self.mend, self.keep) != (1.0, 1.0):
            returns_NT[:, 1:] *= self.mend * (1 - before_NT) + self.keep * before_NT
        if self.repeat:
            assert repeated_NT is not None
            returns_NT[:, 1:] -= self.repeat * (1 - before_NT) * repeated_NT
        returns_NT[:, 1:] += self.alpha * rewards_NT.diff(dim=1)
        for column in range(rewards_NT.shape[1] - 2, -1, -1):
            returns_NT[:, column] += self.gamma * returns_NT[:, column + 1]
        return returns_NT


def stage_one(attempts: int, beta1: float, beta2: float) -> Objective:
    """Eq. 3: the last attempt is rewarded, the others are held to the reference by `beta2`."""
    others = attempts - 1
    return Objective((*[0.0] * others, 1.0), (*[beta2] * others, beta1))


def stage_two(attempts: int, beta1: float, alpha: float, gamma: float) -> Objective:
    """Eq. 4: every attempt is rewarded, and progress by `alpha` on top."""
    return Objective((1.0,) * attempts, (beta1,) * attempts, alpha, gamma)


def policy_loss(
    logp_P: Tensor, kl_P: Tensor | None, advantage_P: Tensor, beta_P: Tensor, weight_P: Tensor
) -> Tensor:
    """The loss of some of a step's tokens; sums over micro-batches give that of the step.

    Args:
        logp_P: log pi of the sampled tokens, with gradient.
        kl_P: a KL term a token, with gradient, or None where it costs nothing or is in the reward.
        advantage_P: A of the token's attempt, without gradient.
        beta_P: beta of the token's attempt.
        weight_P: the token's share of the loss (`token_weights`).
    """
    loss_P = -advantage_P * logp_P
    if kl_P is not None:
        loss_P = loss_P + beta_P * kl_P
    return (weight_P * loss_P).sum()


def kl_term(
    estimator: KLEstimator, logp_P: Tensor, reference_logp_P: Tensor, exact_P: Tensor | None
) -> Tensor:
    """A term a token whose gradient moves KL(pi || pi_ref), by name.

    `exact` is the KL over the whole vocabulary at each sampled position; it leaves out how earlier
    tokens change which positions are reached. `k2_in_loss` is d^2 / 2, d = log pi - log pi_ref: on-policy
    its gradient is that of the reverse KL a token. `k3_in_loss` is exp(-d) - 1 + d, as in GRPO: on-policy
    its gradient is that of the *forward* KL. `k1_in_reward` is no loss term: `kl_penalties`.
    """
    if estimator == "exact":
        assert exact_P is not None
        return exact_P
    difference_P = logp_P - reference_logp_P
    if estimator == "k2_in_loss":
        return 0.5 * difference_P.square()
    if estimator == "k3_in_loss":
        return (-difference_P).exp() - 1 + difference_P
    raise ValueError(f"{estimator} is not a loss term")


def kl_penalties(objective: Objective, logp_NT: Tensor, reference_logp_NT: Tensor) -> Tensor:
    """`k1_in_reward`: beta_t (log pi(y_t) - log pi_ref(y_t)), (N, T), to be taken off the returns.

    The only estimator here that is unbiased for the KL of the whole sequence; carries no gradient.
    """
    return (logp_NT - reference_logp_NT).detach() * logp_NT.new_tensor(objective.kl_weight)


def token_weights(
    aggregation: LengthAggregation, lengths_NT: Tensor, sampled_NT: Tensor, longest: int
) -> Tensor:
    """What one token of each attempt weighs in the loss, (N, T), normalised over the step.

    Each turn is normalised by itself, so that a long second answer does not dilute the first one's KL.

    Args:
        aggregation: `sequence_sum` (the paper's): a sequence's sum, averaged over sequences;
            `sequence_mean`: its mean; `token_mean`: the mean over all tokens of the turn in the step;
            `constant`: its sum divided by `longest`.
        lengths_NT: sampled tokens, of the whole step over all processes. Where there are none the attempt did
            not take place. It counts all the same: how many do is the policy's own choice, and a mean over
            them would be another objective.
        sampled_NT: False where an attempt was given, not sampled: it is not trained on.
        longest: most tokens that an attempt can have.
    """
    trained_NT = sampled_NT.float()
    sequences_T = trained_NT.sum(0).clamp(min=1)
    if aggregation == "token_mean":
        held_T = (trained_NT * (lengths_NT > 0)).sum(0)
        return trained_NT / (trained_NT * lengths_NT).sum(0).clamp(min=1) * (held_T / sequences_T)
    weight_NT = trained_NT / sequences_T
    if aggregation == "sequence_mean":
        return weight_NT / lengths_NT.clamp(min=1)
    return weight_NT / longest if aggregation == "constant" else weight_NT
