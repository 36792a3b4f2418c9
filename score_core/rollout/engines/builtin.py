"""The built-in engine: all attempts of many dialogues sampled in one batch, by the model itself.

Every prompt is prefilled once and its cache repeated for its K trajectories. A later attempt continues
the cache of the one before: only the instruction and the new answer are computed. Rows that end early
leave masked holes in the cache, and positions count real tokens only, so a row's distribution does
not depend on its neighbours. Once a share of the rows has ended these leave the batch, and come back for
the next attempt.

Randomness is one uniform number a token, drawn by the caller for each trajectory, and turned into a
token by inverting the distribution function. What a trajectory samples therefore does not depend on
how trajectories are batched or spread over processes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from score_core.models.memory import Shape
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.cache import BoundedCache
from score_core.rollout.engines.drawing import choose
from score_core.rollout.engines.engine import Engine, OnToken, Request, Sampled
from score_core.rollout.trajectories import TokenLogp

LEAVE = 0.75  # rows leave when at most this share of the batch goes on: moving them takes time too
LOOK = 8  # tokens after which a GPU is asked how many rows have ended: the answer is waited for


class BuiltinEngine(Engine):
    """Samples with the model itself, in this process; reproducible to the bit."""

    reproducible = True

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
        decoder = _Decoder(self.model, conversation, request, self.on_token)
        count = request.count
        dialogues: list[list[tuple[list[int], int]]] = [
            [(prompt, 0)] for prompt in request.prompts for _ in range(request.samples)
        ]
        truncated: list[list[bool]] = [[] for _ in range(count)]
        logp: list[TokenLogp] = [[] for _ in range(count)]
        asked = [True] * count
        for attempt in range(1, request.attempts + 1):
            if attempt == 1 and request.given is not None:
                answers = unread = [list(answer) for answer in request.given]
                chances = [[0.0] * len(answer) for answer in answers]
            elif any(asked):
                answers, chances, unread = decoder.answer(attempt, asked)
            else:  # every dialogue has ended, and stays so
                answers = unread = [[] for _ in asked]
                chances = [[] for _ in asked]
            for row, answer in enumerate(answers):
                dialogues[row].append((answer, attempt))
                truncated[row].append(bool(answer) and answer[-1] not in conversation.end_ids)
                logp[row] = [*logp[row], chances[row]]
            if attempt < request.attempts:
                following = [conversation.continuation(answer, attempt) for answer in answers]
                asked = [len(ids) > 0 for ids in following]
                for row, ids in enumerate(following):
                    dialogues[row].append((ids, 0))
                if any(asked):
                    decoder.go_on([last + ids for last, ids in zip(unread, following, strict=True)])
        return Sampled([tuple(dialogue) for dialogue in dialogues], truncated, logp)


class _Decoder:
    """A model with the cache of a request's N dialogues, of which n are being answered.

    The dialogues that are answered are the first rows of the cache; `order` says which dialogue is where.
    """

    def __init__(
        self, model: PreTrainedModel, conversation: Conversation, request: Request, on_token: OnToken | None
    ) -> None:
        self.model, self.request, self.on_token = model, request, on_token
        self.limit, self.pad_id = conversation.settings.max_new_tokens, conversation.end_ids[0]
        self.end_ids = torch.tensor(conversation.end_ids, device=model.device)
        noise = request.noise
        self.uniform_NTM = None if noise is None else torch.as_tensor(noise, device=model.device).double()
        count, later = request.count, request.attempts - 1
        # And an answer's last token, which no step has read.
        between = max(map(len, conversation.instructions)) + 1
        longest = max(self.limit, *map(len, request.given or ()), 0)
        columns = max(map(len, request.prompts)) + request.attempts * longest + later * between
        self.cache = BoundedCache(model.config, count, columns)
        # As an index it gives the output layer rows side by side: of rows apart, torch would multiply each
        # with weights of its own, where they are frozen, a table as large as (n, H, V) on a CPU.
        self.last_1 = torch.tensor([-1], device=model.device)
        self.shape = Shape.from_config(0, model.config, "float32")
        self.mask_NC = torch.zeros(count, columns, dtype=torch.long, device=model.device)
        self.read_N = torch.zeros(count, dtype=torch.long, device=model.device)  # real tokens of a row
        self.order_N = torch.arange(count, device=model.device)
        self.logits_nV = self._feed(request.prompts)
        if request.samples > 1:
            self._repeat(len(request.prompts), request.samples)

    def answer(
        self, attempt: int, asked: Sequence[bool]
    ) -> tuple[list[list[int]], list[list[float]], list[list[int]]]:
        """Answers of all dialogues, their tokens' log-probabilities, and what of them was not read yet.

        Args:
            asked: whether a dialogue goes on; one that has ended gets an empty answer.
        """
        count, device = self.request.count, self.model.device
        token_NM = torch.full((count, self.limit), -1, device=device)
        logp_NM = torch.zeros(count, self.limit, device=device)
        unread_N = torch.zeros(count, dtype=torch.bool, device=device)
        alive_n = torch.tensor(asked, device=device)[self.order_N]
        look = 1 if device.type == "cpu" else LOOK
        for position in range(self.limit):
            rows = self.order_N[: len(alive_n)]
            u_n = None if self.uniform_NTM is None else self.uniform_NTM[rows, attempt - 1, position]
            token_n, logp_n = choose(self.logits_nV, u_n, self.request.temperature, self.request.top_p)
            token_n = torch.where(alive_n, token_n, -1)
            token_NM[rows, position] = token_n
            logp_NM[rows, position] = torch.where(alive_n, logp_n, 0.0)
            if self.on_token is not None:
                chosen = zip(rows.tolist(), token_n.tolist(), strict=True)
                self.on_token(attempt, {row: token for row, token in chosen if token >= 0})
            unread_N[rows] = alive_n
            alive_n = alive_n & ~torch.isin(token_n, self.end_ids)
            if (position + 1) % look == 0:
                left = int(alive_n.sum())
                if not left:
                    break
                if left <= LEAVE * len(alive_n):
                    token_n = self._keep(alive_n, left, token_n)
                    alive_n = alive_n.new_ones(left)
            if position + 1 < self.limit:
                self.logits_nV = self._step(token_n)
        table, chances = token_NM.tolist(), logp_NM.tolist()
        answers = [[token for token in row if token >= 0] for row in table]
        unread = [
            answer[-1:] if there else [] for answer, there in zip(answers, unread_N.tolist(), strict=True)
        ]
        logp = [row[: len(answer)] for row, answer in zip(chances, answers, strict=True)]
        return answers, logp, unread

    def go_on(self, rows: Sequence[list[int]]) -> None:
        """Appends some tokens to every dialogue; all are answered next."""
        self.logits_nV = self._feed([rows[dialogue] for dialogue in self.order_N.tolist()])

    def _keep(self, alive_n: Tensor, left: int, token_n: Tensor) -> Tensor:
        """Moves the dialogues that go on to the first rows; returns their tokens."""
        ended = (~alive_n[:left]).nonzero()[:, 0]
        behind = alive_n[left:].nonzero()[:, 0] + left
        self.cache.swap(ended, behind)
        for values in (self.mask_NC, self.read_N, self.order_N):
            values[ended], values[behind] = values[behind], values[ended]
        token_n[ended] = token_n[behind]
        return token_n[:left]

    def _feed(self, rows: Sequence[list[int]]) -> Tensor:
        """Appends ragged rows, padded on the left; returns the logits (n, V) after the last token."""
        width = max(map(len, rows))
        ids = [[self.pad_id] * (width - len(row)) + row for row in rows]
        real = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = self.model.device
        ids_nL, real_nL = torch.tensor(ids, device=device), torch.tensor(real, device=device)
        # As many rows at a time as there is memory for: what a layer makes of them, not only their cache.
        start = self.cache.get_seq_length()
        size = self.shape.rows_read(width, start + width)
        logits = []
        for first, (ids_mL, real_mL) in enumerate(zip(ids_nL.split(size), real_nL.split(size), strict=True)):
            self.cache.go_to(first * size, start)
            logits.append(self._forward(ids_mL, real_mL, first * size))
        self.cache.go_to(0, start + width)
        return torch.cat(logits)

    def _step(self, token_n: Tensor) -> Tensor:
        """Appends one token a row; a row that has ended (-1) gets a hole that nothing attends to."""
        return self._forward(token_n.clamp(min=0)[:, None], (token_n >= 0).long()[:, None])

    def _repeat(self, prompts: int, samples: int) -> None:
        """Turns the rows of each prompt into those of its trajectories."""
        self.cache.repeat(prompts, samples)
        for values in (self.mask_NC, self.read_N):
            values[:] = values[:prompts].repeat_interleave(samples, dim=0)
        self.logits_nV = self.logits_nV.repeat_interleave(samples, dim=0)

    def _forward(self, ids_nL: Tensor, real_nL: Tensor, first: int = 0) -> Tensor:
        (count, width), start = ids_nL.shape, self.cache.get_seq_length()
        rows = slice(first, first + count)
        self.mask_NC[rows, start : start + width] = real_nL
        position_nL = self.read_N[rows, None] + real_nL.cumsum(-1) - 1
        self.read_N[rows] += real_nL.sum(-1)
        return self.model(
            input_ids=ids_nL,
            attention_mask=self.mask_NC[rows, : start + width],
            position_ids=position_nL.clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1 if width == 1 else self.last_1,
        ).logits[:, -1]
