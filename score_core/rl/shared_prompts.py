"""A prompt's K trajectories share its computation: it is read once, and continued K times.

At prompts of 200 tokens, K = 8 and twice 50 sampled tokens a dialogue's 300 are 125, forward and backward.
The keys and values of the prompts carry gradients like all else, so the sums are those of whole dialogues,
in another order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from score_core.rollout.trajectories import Trajectories


@dataclass(frozen=True)
class SharedPrompts:
    """N dialogues as B prompts of up to X tokens, and as many continuations of up to S.

    Attributes:
        prompt_ids_BX: padded on the left.
        prompt_mask_BX: 1 where there is a token.
        prompt_N: the prompt of each dialogue.
        input_ids_NS: what follows it, padded on the right.
        mask_NS: 1 where there is a token.
        sampled_NS: which of these were sampled.
    """

    prompt_ids_BX: Tensor
    prompt_mask_BX: Tensor
    prompt_N: Tensor
    input_ids_NS: Tensor
    mask_NS: Tensor
    sampled_NS: Tensor

    @classmethod
    def of(cls, trajectories: Trajectories) -> "SharedPrompts":
        """Takes dialogues apart.

        Also where no two have the same prompt: a process that read them whole would call the decoder once,
        and others twice; under ZeRO-3 and FSDP2 each call is a collective operation.
        """
        prompts = [tuple(pieces[0][0]) for pieces in trajectories.segments]
        index = {prompt: at for at, prompt in enumerate(dict.fromkeys(prompts))}
        ids_NL, mask_NL = trajectories.input_ids_NL, trajectories.attention_mask_NL
        device, width = ids_NL.device, max(map(len, index))
        rows = [[0] * (width - len(prompt)) + [*prompt] for prompt in index]
        masks = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in index]
        # A dialogue's tokens behind its prompt stand at the right; moved to the left, padding follows them.
        length_N = mask_NL.sum(-1) - torch.tensor([*map(len, prompts)], device=device)
        column_S = torch.arange(int(length_N.max()), device=device)
        mask_NS = column_S < length_N[:, None]
        source_NS = (ids_NL.shape[1] - length_N[:, None] + column_S).clamp(max=ids_NL.shape[1] - 1)
        return cls(
            torch.tensor(rows, device=device),
            torch.tensor(masks, device=device),
            torch.tensor([index[prompt] for prompt in prompts], device=device),
            ids_NL.gather(1, source_NS),
            mask_NS.long(),
            (trajectories.attempt_NL.gather(1, source_NS) > 0) & mask_NS,
        )

    def hidden(self, decoder: Callable[..., Any], config: PreTrainedConfig) -> Tensor:
        """The hidden states (N, S, H) that predict the tokens of `input_ids_NS`.

        Args:
            decoder: the model below its output layer.
            config: the model's.
        """
        cache = DynamicCache(config=config)
        position_BX = (self.prompt_mask_BX.cumsum(-1) - 1).clamp(min=0)
        prompt_BXH = decoder(
            input_ids=self.prompt_ids_BX,
            attention_mask=self.prompt_mask_BX,
            position_ids=position_BX,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        cache.batch_select_indices(self.prompt_N)
        read_N1 = self.prompt_mask_BX.sum(-1, keepdim=True)[self.prompt_N]
        hidden_NSH = decoder(
            input_ids=self.input_ids_NS,
            attention_mask=torch.cat([self.prompt_mask_BX[self.prompt_N], self.mask_NS], dim=1),
            position_ids=read_N1 + torch.arange(self.mask_NS.shape[1], device=self.mask_NS.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        # A token is predicted from the one before it, the first from the last of its prompt.
        return torch.cat([prompt_BXH[self.prompt_N, -1:], hidden_NSH[:, :-1]], dim=1)
