"""Steps of SCoRe in plain torch, written from the paper's formulas: one trajectory, one attempt at a time.

Of the code under test it takes the sampled tokens, and which first attempts were given. Rewards, returns,
baselines, log-probabilities, KL, normalisation, clipping and Adam are its own.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

# The reward is 1 for a right answer and this much for an even one, whether it is right or not.
CREDIT = 0.25


@dataclass(frozen=True)
class Formula:
    """The numbers of Eq. 3 or 4, an attempt's each, and how they are estimated."""

    reward: tuple[float, float]
    beta: tuple[float, float]
    alpha: float = 0.0
    gamma: float = 0.0
    temperature: float = 1.0
    estimator: str = "exact"
    given_first: bool = False  # attempt 2's baseline looks at those with the same first outcome
    credit: float = 0.0
    aggregation: str = "sequence_sum"
    longest: int = 0


@dataclass(frozen=True)
class Said:
    """One trajectory: `pieces` are x1, y1, p1, y2 as ids."""

    pieces: list[list[int]]
    texts: list[str]
    right: int  # the gold answer
    given: bool = False  # the first attempt was not sampled from the policy


def read(tokenizer: PreTrainedTokenizerBase, segments: Sequence[tuple[list[int], int]], given: bool) -> Said:
    """A dialogue about a sum; the question is read from the prompt itself."""
    pieces = [ids for ids, _ in segments]
    question = tokenizer.decode(pieces[0], skip_special_tokens=True)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in pieces[1::2]]
    return Said(pieces, texts, sum(map(int, question.rstrip("=").split("+"))), given)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def step(policy: nn.Module, reference: nn.Module, said: Sequence[Said], formula: Formula):
    """The loss of a step, with gradient, and the figures that a step logs."""
    attempts, numbers = (0, 1), range(len(said))
    correct = [[text.isdigit() and int(text) == one.right for text in one.texts] for one in said]
    reward = [
        [
            correct[n][t] + formula.credit * (said[n].texts[t][-1:] in ("0", "2", "4", "6", "8"))
            for t in attempts
        ]
        for n in numbers
    ]
    scores = [
        [scores_of(policy, reference, one.pieces, t, formula.temperature) for t in attempts] for one in said
    ]
    returns = [
        [formula.reward[0] * r1, formula.reward[1] * r2 + formula.alpha * (r2 - r1)] for r1, r2 in reward
    ]
    for row in returns:
        row[0] += formula.gamma * row[1]
    if formula.estimator == "k1_in_reward":
        for n in numbers:
            for t in attempts:
                logp_L, reference_L, *_ = scores[n][t]
                returns[n][t] -= formula.beta[t] * float((logp_L.detach() - reference_L).sum())

    loss = torch.zeros((), dtype=torch.float64)
    for t in attempts:
        trained = [n for n in numbers if t == 1 or not said[n].given]
        for n in trained:
            others = [m for m in trained if m != n and said[m].pieces[0] == said[n].pieces[0]]
            if t == 1 and formula.given_first:
                alike = [m for m in trained if m != n and correct[m][0] == correct[n][0]]
                others = [m for m in alike if m in others] or alike
            advantage = returns[n][t] - mean([returns[m][t] for m in others])
            logp_L, reference_L, kl_L, _ = scores[n][t]
            d_L = logp_L - reference_L
            kl = {
                "exact": kl_L,
                "k1_in_reward": torch.zeros(1),
                "k2_in_loss": d_L**2 / 2,
                "k3_in_loss": torch.exp(-d_L) - 1 + d_L,
            }[formula.estimator]
            weight = {
                "sequence_sum": 1 / len(trained),
                "sequence_mean": 1 / len(trained) / len(logp_L),
                "token_mean": 1 / sum(len(said[m].pieces[2 * t + 1]) for m in trained),
                "constant": 1 / len(trained) / formula.longest if formula.longest else None,
            }[formula.aggregation]
            loss = loss + weight * (formula.beta[t] * kl.sum() - advantage * logp_L.sum())

    figures = {"loss": loss.item()}
    for t in attempts:
        lengths = [len(one.pieces[2 * t + 1]) for one in said]
        kl = {  # as a figure k3, which is unbiased, where the loss has k2
            "exact": lambda row: row[2],
            "k1_in_reward": lambda row: row[0] - row[1],
        }.get(formula.estimator, lambda row: torch.exp(row[1] - row[0]) - 1 + row[0] - row[1])
        figures |= {
            f"accuracy_t{t + 1}": mean([row[t] for row in correct]),
            f"reward_t{t + 1}": mean([row[t] for row in reward]),
            f"return_t{t + 1}": mean([row[t] for row in returns]),
            f"length_t{t + 1}": mean(lengths),
            f"kl_t{t + 1}": mean([kl(row[t]).sum().item() for row in scores]),
            f"entropy_t{t + 1}": sum(float(row[t][3].sum()) for row in scores) / sum(lengths),
        }
    answers = [[int(text) if text.isdigit() else None for text in one.texts] for one in said]
    figures["changed_t2"] = mean([first != second for first, second in answers])
    return loss, figures


def scores_of(policy: nn.Module, reference: nn.Module, pieces: list[list[int]], t: int, temperature: float):
    """Of attempt t's tokens: log pi, log pi_ref, KL over the vocabulary, entropy; read without padding."""
    context = [token for ids in pieces[: 2 * t + 1] for token in ids]
    sampled = pieces[2 * t + 1]
    ids = torch.tensor([context + sampled])
    at = slice(len(context) - 1, len(context) + len(sampled) - 1)
    logp_LV = (policy(input_ids=ids).logits[0, at] / temperature).log_softmax(-1)
    with torch.no_grad():
        reference_LV = (reference(input_ids=ids).logits[0, at] / temperature).log_softmax(-1)
    chosen = range(len(sampled)), sampled
    kl_L = (logp_LV.exp() * (logp_LV - reference_LV)).sum(-1)
    entropy_L = -(logp_LV.exp() * logp_LV).sum(-1).detach()
    return logp_LV[chosen], reference_LV[chosen], kl_L, entropy_L


class Adam:
    """AdamW behind clipping of the whole gradient's norm, by its definition."""

    def __init__(
        self, model: nn.Module, rate: float, betas: tuple[float, float], decay: float, clip: float
    ) -> None:
        self.model, self.rate, self.betas, self.decay, self.clip = model, rate, betas, decay, clip
        self.moments = defaultdict(lambda: (0.0, 0.0))
        self.steps = 0

    def step(self, loss: Tensor) -> float:
        """Takes one; returns the gradient's norm before clipping."""
        self.model.zero_grad()
        loss.backward()
        self.steps += 1
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        norm = sum(float((g**2).sum()) for g in gradients.values()) ** 0.5
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                gradient = gradients[name] * min(1.0, self.clip / norm)
                first, second = self.moments[name]
                first = self.betas[0] * first + (1 - self.betas[0]) * gradient
                second = self.betas[1] * second + (1 - self.betas[1]) * gradient**2
                self.moments[name] = first, second
                if parameter.ndim > 1:  # biases and norms do not decay
                    parameter -= self.rate * self.decay * parameter
                unbiased = first / (1 - self.betas[0] ** self.steps)
                spread = (second / (1 - self.betas[1] ** self.steps)).sqrt()
                parameter -= self.rate * unbiased / (spread + 1e-8)
        return norm
