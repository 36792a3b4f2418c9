"""The built-in engine: all attempts of many dialogues sampled in one batch, by the model itself.

Every prompt is prefilled once and its cache repeated for its K trajectories. A later attempt continues
the cache of the one before: only the instruction and the new answer are computed. Rows that end early
leave masked holes in the cache, and positions count real tokens only, so a row's distribution does
not depend on its neighbours.

Randomness is one uniform number a token, drawn by the caller for each trajectory, and turned into a
token by inverting the distribution function. What a trajectory samples therefore does not depend on
how trajectories are batched or spread over processes.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.engine import Request, Sampled


class BuiltinEngine:
    """Samples with the model itself, in this process; reproducible to the bit."""

    def __init__(self) -> None:
        self._model: PreTrainedModel | None = None

    @property
    def model(self) -> PreTrainedModel:
        """A causal language model that keeps a cache."""
        assert self._model is not None, "load() a model before sampling"
        return self._model

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    def load(self, model: PreTrainedModel) -> None:
        """Samples from `model`; it is switched to evaluation mode while it does."""
        self._model = model

    @torch.no_grad()
    def sample(self, conversation: Conversation, request: Request) -> Sampled:
        """See `Engine.sample`."""
        was_training = self.model.training
        self.model.eval()
        try:
            return self._sample(conversation, request)
        finally:
            self.model.train(was_training)

    def _sample(self, conversation: Conversation, request: Request) -> Sampled:
        count, device = request.count, self.device
        limit = conversation.settings.max_new_tokens
        decoder = _Decoder(self.model, conversation.end_ids[0])
        noise = request.noise
        uniform = None if noise is None else torch.as_tensor(noise, dtype=torch.float64, device=device)
        end_ids = torch.tensor(conversation.end_ids, device=device)

        dialogues: list[list[tuple[list[int], int]]] = [
            [(prompt, 0)] for prompt in request.prompts for _ in range(request.samples)
        ]
        truncated: list[list[bool]] = [[] for _ in range(count)]
        logp_NT = torch.zeros(count, request.attempts, device=device)
        logits = decoder.feed(list(request.prompts))
        if request.samples > 1:
            decoder.repeat(request.samples)
            logits = logits.repeat_interleave(request.samples, dim=0)

        for attempt in range(1, request.attempts + 1):
            if attempt == 1 and request.given is not None:
                answers, pending = list(request.given), list(request.given)
            else:
                drawn: list[Tensor] = []
                alive = torch.ones(count, dtype=torch.bool, device=device)
                for position in range(limit):
                    if position:
                        logits = decoder.step(drawn[-1])
                    u = None if uniform is None else uniform[:, attempt - 1, position]
                    token, logp = choose(logits, u, request.temperature, request.top_p)
                    logp_NT[:, attempt - 1] += logp * alive
                    drawn.append(torch.where(alive, token, -1))
                    alive = alive & ~torch.isin(token, end_ids)
                    if not alive.any():
                        break
                table = torch.stack(drawn, dim=1).tolist()
                answers = [[token for token in row if token >= 0] for row in table]
                # The last column was drawn but not yet fed.
                pending = [row[-1:] if row[-1] >= 0 else [] for row in table]
            for row, answer in enumerate(answers):
                dialogues[row].append((answer, attempt))
                truncated[row].append(bool(answer) and answer[-1] not in conversation.end_ids)
            if attempt < request.attempts:
                following = [conversation.continuation(answer) for answer in answers]
                for row, ids in enumerate(following):
                    dialogues[row].append((ids, 0))
                logits = decoder.feed([last + ids for last, ids in zip(pending, following, strict=True)])
        return Sampled([tuple(dialogue) for dialogue in dialogues], truncated, logp_NT)


def choose(logits_NV: Tensor, u_N: Tensor | None, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Picks a token a row, greedily where `u_N` is None; returns tokens (N,) and log-probabilities (N,)."""
    logp_NV = torch.log_softmax(logits_NV.float() / (temperature or 1.0), dim=-1)
    if u_N is None:
        token = logp_NV.argmax(-1)
    else:
        # Sums over a large vocabulary in float32 would misplace rare tokens.
        mass_NV = logp_NV.double().exp()
        if top_p < 1:
            ordered, order = mass_NV.sort(descending=True, dim=-1)
            ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
            mass_NV = torch.zeros_like(mass_NV).scatter(-1, order, ordered)
        below_NV = mass_NV.cumsum(-1)
        # The first token whose cumulated mass exceeds u: a token without mass is never chosen.
        token = torch.searchsorted(below_NV, (u_N * below_NV[:, -1])[:, None], right=True).squeeze(-1)
        token = token.clamp(max=logp_NV.shape[-1] - 1)
    return token, logp_NV.gather(-1, token[:, None]).squeeze(-1)


class _Decoder:
    """A model with its cache and the mask of what is real in it."""

    def __init__(self, model: PreTrainedModel, pad_id: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self.cache = DynamicCache(config=model.config)
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)

    def feed(self, rows: list[list[int]]) -> Tensor:
        """Appends ragged `rows`, padded on the left; returns the logits (N, V) after the last token."""
        width = max(map(len, rows))
        ids = [[self.pad_id] * (width - len(row)) + row for row in rows]
        real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = self.model.device
        return self._forward(torch.tensor(ids, device=device), torch.tensor(real, device=device))

    def step(self, token_N: Tensor) -> Tensor:
        """Appends one token a row; a row that has ended (-1) gets a hole that nothing attends to."""
        return self._forward(token_N.clamp(min=0)[:, None], (token_N >= 0).long()[:, None])

    def repeat(self, samples: int) -> None:
        """Turns the cache of each prompt into that of its trajectories."""
        self.cache.batch_repeat_interleave(samples)
        self.mask = self.mask.repeat_interleave(samples, dim=0)

    def _forward(self, ids: Tensor, real: Tensor) -> Tensor:
        self.mask = real if self.mask.numel() == 0 else torch.cat([self.mask, real], dim=1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
