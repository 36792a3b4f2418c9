"""Log-probabilities of the sampled tokens of whole trajectories, all turns in one forward.

The output layer is applied at sampled positions only, and in chunks: logits of 12,800 positions in a
vocabulary of 152,000 take 8 GB, those of the 6,400 sampled ones 4 GB, and those of one chunk 0.3 GB. For
the exact KL a chunk's logits are computed twice, the reference's from its hidden states: 6,400 of 1,536
numbers take 20 MB in bf16, where the distributions they stand for take 4 GB.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from score_core.distributed import most_calls
from score_core.rl.shared_prompts import SharedPrompts
from score_core.rollout.trajectories import Trajectories

CHUNK = 2**26  # logits held at a time, 0.3 GB: 441 positions of Qwen's vocabulary, any small model's all


@dataclass(frozen=True)
class TokenScores:
    """What a model says of the P sampled tokens of a batch, row after row.

    Attributes:
        logp_P: log-probability of the token that was sampled, in nats.
        entropy_P: entropy of the distribution it was sampled from, in nats; carries no gradient.
        kl_P: exact KL(pi || pi_ref) at that position over the whole vocabulary, in nats; None where no
            reference was given.
        hidden_PH: what the output layer makes the distribution of; None unless it was asked for.
    """

    logp_P: Tensor
    entropy_P: Tensor
    kl_P: Tensor | None = None
    hidden_PH: Tensor | None = None


@dataclass(frozen=True)
class Distributions:
    """A reference's distributions at the P sampled positions, without their P x V logits.

    Attributes:
        hidden_PH: the reference's `TokenScores.hidden_PH`.
        project: its output layer, from hidden states (n, H) to logits (n, V), without gradient.
    """

    hidden_PH: Tensor
    project: Callable[[Tensor], Tensor]


def add_token_scoring(model: nn.Module) -> None:
    """Lets `model` be called with `score_mask`, which returns the scores of sampled tokens, or `project`.

    It is the model's own forward that is extended, because wrappers (DDP, DeepSpeed, FSDP, PEFT, mixed
    precision) do their work when the forward they wrapped is called. Calls without either are left as
    they were. Adding twice does nothing.

    What a model does to its logits behind the output layer (caps, scales) is not done here; `gap.py` notices.
    """
    network: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if "_plain_forward" in vars(network):
        return
    network._plain_forward = network.forward

    # generate() and Trainer read from the signature what a model takes, so it must not change.
    @wraps(type(network).forward)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        return _forward(self, *args, **kwargs)

    # A method, not a closure over `network`, so that a deep copy runs on its own weights.
    network.forward = MethodType(forward, network)


def score(
    model: nn.Module,
    trajectories: Trajectories,
    temperature: float,
    *,
    reference: Distributions | None = None,
    keep_hidden: bool = False,
    share_prompts: bool = False,
) -> TokenScores:
    """Scores the sampled tokens of `trajectories` under `model`, wrapped or not.

    Args:
        temperature: divides the logits; must be the one that the tokens were sampled at.
        reference: for the exact KL.
        keep_hidden: also return the hidden states.
        share_prompts: read a prompt that several of them have once.
    """
    prompts = SharedPrompts.of(trajectories) if share_prompts else None
    if prompts is None:
        read: dict[str, Any] = {
            "input_ids": trajectories.input_ids_NL,
            "attention_mask": trajectories.attention_mask_NL,
            "position_ids": trajectories.position_ids_NL,
            "score_mask": trajectories.attempt_NL > 0,
        }
    else:
        read = {"prompts": prompts, "score_mask": prompts.sampled_NS}
    scores = model(
        **read,
        temperature=temperature,
        reference=reference,
        keep_hidden=keep_hidden,
    )
    return TokenScores(**scores)


def score_upto(
    model: nn.Module, trajectories: Trajectories, temperature: float, last: int, **options: Any
) -> TokenScores:
    """Scores under a reference whose KL counts up to attempt `last`; carries no gradient.

    Nothing is computed after it: those tokens get zeros, which their coefficient of 0 cancels.

    Args:
        options: `keep_hidden` and `share_prompts` of `score`.
    """
    complete = last == trajectories.truncated_NT.shape[1]
    part = trajectories if complete else trajectories.upto(last)
    with torch.no_grad():
        scores = score(model, part, temperature, **options)
    if complete:
        return scores
    _, column_P = trajectories.sampled
    counted_P = column_P < last

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(len(column_P), *values.shape[1:]).index_put_((counted_P,), values)

    hidden_PH = None if scores.hidden_PH is None else spread(scores.hidden_PH)
    return TokenScores(spread(scores.logp_P), spread(scores.entropy_P), hidden_PH=hidden_PH)


def attempt_logp(model: nn.Module, trajectories: Trajectories, temperature: float, batch_size: int) -> Tensor:
    """Log-probability (N, T) of each attempt, in nats, scored in batches; carries no gradient."""
    parts = []
    for start in range(0, len(trajectories), batch_size):
        part = trajectories.select(range(start, min(start + batch_size, len(trajectories))))
        with torch.no_grad():
            logp_P = score(model, part, temperature).logp_P
        sums_NT = torch.zeros(part.truncated_NT.shape, device=logp_P.device)
        parts.append(sums_NT.index_put_(part.sampled, logp_P, accumulate=True))
    return torch.cat(parts)


def _forward(
    self: PreTrainedModel,
    *args: Any,
    score_mask: Tensor | None = None,
    prompts: SharedPrompts | None = None,
    temperature: float = 1.0,
    reference: Distributions | None = None,
    keep_hidden: bool = False,
    project: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    head = self.get_output_embeddings()
    if project is not None:
        return head(project)
    if score_mask is None:
        plain: Any = self._plain_forward
        return plain(*args, **kwargs)
    if prompts is None:
        hidden_NLH = self.get_decoder()(*args, use_cache=False, **kwargs).last_hidden_state
        # The token at position l is predicted from position l - 1.
        hidden_PH = hidden_NLH[:, :-1][score_mask[:, 1:]]
        token_P = kwargs["input_ids"][:, 1:][score_mask[:, 1:]]
    else:
        hidden_PH = prompts.hidden(self.get_decoder(), self.config)[score_mask]
        token_P = prompts.input_ids_NS[score_mask]
    size = max(1, CHUNK // self.config.get_text_config().vocab_size)
    parts = []
    # After the last token chunks are empty: calls that other processes need, and this one does not.
    chunks = most_calls(max(1, -(-len(token_P) // size)), token_P.device)
    for start in range(0, chunks * size, size):
        at = slice(start, start + size)
        chunk = None if reference is None else Distributions(reference.hidden_PH[at], reference.project)
        inputs = (head, hidden_PH[at], token_P[at], temperature, chunk)
        # One chunk needs no recomputation: its logits fit.
        if torch.is_grad_enabled() and chunks > 1:
            parts.append(checkpoint(_score_chunk, *inputs, use_reentrant=False))
        else:
            parts.append(_score_chunk(*inputs))
    scores = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {**scores, "hidden_PH": hidden_PH} if keep_hidden else scores


def _score_chunk(
    head: nn.Module,
    hidden_PH: Tensor,
    token_P: Tensor,
    temperature: float,
    reference: Distributions | None,
) -> dict[str, Tensor]:
    logp_PV = torch.log_softmax(head(hidden_PH).float() / temperature, dim=-1)
    scores = {"logp_P": logp_PV.gather(-1, token_P[:, None]).squeeze(-1)}
    with torch.no_grad():
        scores["entropy_P"] = -(logp_PV.exp() * logp_PV).sum(-1)
    if reference is not None:
        with torch.no_grad():
            logits_PV = reference.project(reference.hidden_PH).float()
            reference_logp_PV = torch.log_softmax(logits_PV / temperature, dim=-1)
        scores["kl_P"] = (logp_PV.exp() * (logp_PV - reference_logp_PV)).sum(-1)
    return scores
