"""The engine `vllm`: dialogues sampled by an inference server, which is handed the weights before each step.

The server runs in an environment and processes of its own (`tasks/runner/sampler.py` starts one), on this
machine or another. It has random numbers of its own, so what a trajectory samples depends on which others it
was computed with: the engine is not reproducible. All processes of a run share the server: the first hands
over, each asks for its own dialogues.

Weights go as files in memory: 3 GB take a second or two. Of a model with an adapter the base goes once, and
then the adapter alone where the server takes it: merged into bf16 weights, with their 8 bits, what is small
beside them would be lost. After each hand-over the server is asked something that the trainer answers, too
(`handover_check.py`).
"""

import asyncio
import logging
from pathlib import Path
from typing import Self
from weakref import ref

import torch
from accelerate.utils import wait_for_everyone
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from score_core.distributed import rank
from score_core.errors import UserError
from score_core.models.handover import (
    adapter_is_on,
    bytes_of,
    bytes_of_adapter,
    passing_folder,
    write_adapter,
    write_whole,
)
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.engine import Engine, Request, Sampled, Setting
from score_core.rollout.engines.handover_check import HandoverCheck
from score_core.rollout.engines.vllm_server import Answer, Ask, Question, Refused, VllmServer
from score_core.rollout.trajectories import Segments, TokenLogp

log = logging.getLogger(__name__)
SEEDS = 2**53  # what is random in a uniform number

# One dialogue: its pieces, which attempts were cut, and their tokens' log-probabilities.
Dialogue = tuple[Segments, list[bool], TokenLogp]


class VllmEngine(Engine):
    """Samples with a server.

    Args:
        server: that has, or has been started for, a model of the same shape.
        weights: the folder in which weights are handed over; None takes memory.
        dtype: of the weights that it is handed.
        tolerated: see `Setting`.
    """

    schedules = True

    def __init__(self, server: VllmServer, weights: Path | None, dtype: str, tolerated: float) -> None:
        self.server, self.weights, self.dtype = server, weights, getattr(torch, dtype)
        self.check = HandoverCheck(server, tolerated)
        self._device: torch.device | None = None
        self._takes_adapters: bool | None = None  # not asked yet
        self._base: ref[nn.Module] | None = None  # whose weights the server has, for adapters on them

    @classmethod
    def make(cls, setting: Setting) -> Self:
        """For the server that runtime.yaml names.

        Raises:
            UserError: there is no such folder as weights are to be handed over in.
        """
        launch, settings = setting.runtime.launch, setting.runtime.vllm
        address = launch.sampler
        assert address not in (None, "start"), "the command starts the server, and puts its address here"
        weights = None if settings.weights is None else Path(settings.weights)
        # Of several machines the first one's process hands over.
        if weights is not None and launch.machine_rank == 0 and not weights.is_dir():
            raise UserError(
                f"runtime.yaml: vllm.weights: {weights}: no such folder; make it where trainer and server "
                "both see it, or use null for memory, where both are on this machine."
            )
        return cls(VllmServer(str(address), settings.timeout), weights, setting.dtype, setting.tolerated)

    @property
    def device(self) -> torch.device:
        """The trainer's."""
        assert self._device is not None, "load() a model before sampling"
        return self._device

    def load(self, model: PreTrainedModel) -> None:
        """Hands the weights over; by the first process, when all others have what they asked for before."""
        wait_for_everyone()
        if rank() == 0:
            if not (isinstance(model, PeftModel) and self._hand_over_adapter(model)):
                self._base = None
                self._hand_over(model)
            self.check.after(model)
        self._device = model.device
        wait_for_everyone()

    def _hand_over(self, model: PreTrainedModel | PeftModel, adapters: bool = True) -> None:
        with passing_folder(self.weights, bytes_of(model, self.dtype)) as folder:
            write_whole(model, folder, self.dtype, adapters)
            self.server.load(folder)

    def _hand_over_adapter(self, model: PeftModel) -> bool:
        """The adapter where it is on, and the base where the server has another; False where it refuses."""
        if self._takes_adapters is None:
            self._takes_adapters = self.server.takes_adapters()
            if not self._takes_adapters:
                log.info("%s takes no adapters: they are merged into the weights", self.server.name)
        if not self._takes_adapters:
            return False
        base = model.get_base_model()
        if self._base is None or self._base() is not base:
            self._hand_over(model, adapters=False)
            self._base = ref(base)
        if not adapter_is_on(model):
            self.server.drop_adapter()
            return True
        try:
            with passing_folder(self.weights, bytes_of_adapter(model)) as folder:
                write_adapter(model, folder)
                self.server.load_adapter(folder)
        except Refused as error:
            log.warning("adapters are merged into the weights from here on: %s", error)
            self._takes_adapters = False
        return self._takes_adapters

    def sample(self, conversation: Conversation, request: Request) -> Sampled:
        """See `Engine.sample`; of the noise only what seeds the server's own is used.

        With `top_p` below 1 log-probabilities are those within the nucleus.
        """
        dialogues = asyncio.run(self._sample(conversation, request))
        if rank() == 0:
            self.check.still()
        return Sampled(*(list(column) for column in zip(*dialogues, strict=True)))

    async def _sample(self, conversation: Conversation, request: Request) -> list[Dialogue]:
        async with self.server.asking() as ask:
            speaker = _Speaker(ask, conversation, request)
            groups = await asyncio.gather(*(speaker.group(at) for at in range(len(request.prompts))))
        return [dialogue for group in groups for dialogue in group]


class _Speaker:
    """Holds a request's dialogues, each as fast as it goes: none waits for others between attempts."""

    def __init__(self, ask: Ask, conversation: Conversation, request: Request) -> None:
        self.ask, self.conversation, self.request = ask, conversation, request

    async def group(self, at: int) -> list[Dialogue]:
        """The dialogues of a prompt."""
        request, start = self.request, at * self.request.samples
        rows = range(start, start + request.samples)
        if request.given is not None:
            firsts = [Answer(list(request.given[row]), [0.0] * len(request.given[row]), []) for row in rows]
        else:
            firsts = await self.ask(self._question(request.prompts[at], start, 1, request.samples))
        return await asyncio.gather(
            *(
                self._dialogue(request.prompts[at], row, first)
                for row, first in zip(rows, firsts, strict=True)
            )
        )

    async def _dialogue(self, prompt: list[int], row: int, first: Answer) -> Dialogue:
        pieces, answers = [(prompt, 0), (first.ids, 1)], [first]
        for attempt in range(2, self.request.attempts + 1):
            pieces.append((self.conversation.continuation(answers[-1].ids, attempt - 1), 0))
            answer = Answer([], [], [])
            if pieces[-1][0]:
                said = [token for ids, _ in pieces for token in ids]
                (answer,) = await self.ask(self._question(said, row, attempt, 1))
            answers.append(answer)
            pieces.append((answer.ids, attempt))
        cut = [bool(one.ids) and one.ids[-1] not in self.conversation.end_ids for one in answers]
        return tuple(pieces), cut, [one.logp for one in answers]

    def _question(self, ids: list[int], row: int, attempt: int, samples: int) -> Question:
        request, noise = self.request, self.request.noise
        return Question(
            ids,
            samples,
            self.conversation.settings.max_new_tokens,
            self.conversation.end_ids,
            temperature=0.0 if noise is None else request.temperature,
            top_p=1.0 if noise is None else request.top_p,
            seed=0 if noise is None else int(noise[row, attempt - 1, 0] * SEEDS),
        )
