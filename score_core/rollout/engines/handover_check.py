"""Whether a server has the weights that it was handed: it is asked what the trainer can answer, too.

This finds what a server says nothing of: an output layer that kept its old weights, weights that were never
taken up, another precision, log-probabilities that know no temperature, somebody else's weights, a server
that was started anew. The gap of each step's own tokens (`rl/gap.py`) is the second watch.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from score_core.errors import UserError
from score_core.rollout.engines.vllm_server import Answer, Question, VllmServer
from score_core.seeding import stream

TEXTS, READ, SAID = 8, 12, 4  # texts of random tokens, how long they are, and by how much they are continued
LENGTH = READ + SAID
TEMPERATURE = 0.7  # not 1, so that log-probabilities that know no temperature are found
SLACK = 3  # times what a step's mean may be off: some tokens are noisier than thousands
CLEAR = 4  # times the usual difference of server and trainer: less of a change proves nothing


@dataclass(frozen=True)
class Reading:
    """Log-probabilities of the same tokens by server and trainer, of those that were read and of all."""

    server_read: np.ndarray
    trainer_read: np.ndarray
    server: np.ndarray
    trainer: np.ndarray


class HandoverCheck:
    """The check of one server over a run; for one process."""

    def __init__(self, server: VllmServer, tolerated: float) -> None:
        self.server, self.most = server, SLACK * tolerated
        self._questions: list[Question] = []
        self._last: Reading | None = None  # at the last hand-over
        self._known: Reading | None = None  # at the last one that changed enough to be told from none

    def after(self, model: PreTrainedModel) -> None:
        """To be called after each hand-over, with the trainer's model.

        Raises:
            UserError: the server does not have its weights.
        """
        if not self._questions:
            self._questions = _questions(model.config.get_text_config().vocab_size)
        reading = self._read(model)
        off = np.abs(reading.server - reading.trainer).mean()
        if not off <= self.most:
            raise UserError(
                f"{self.server.name} was handed the weights and differs from the trainer by {off:.2g} nats a "
                f"token; expected {self.most:.2g} at most. It needs the same model in the same dtype, "
                "--logprobs-mode processed_logprobs, and an output layer with weights of its own "
                "(`tie_word_embeddings: false`); `python -m tasks.commands.sampler` starts one so."
            )
        if self._known is not None:
            moved = reading.trainer_read - self._known.trainer_read
            followed = reading.server_read - self._known.server_read
            usual = np.linalg.norm(self._known.server_read - self._known.trainer_read)
            clear = np.linalg.norm(moved) > CLEAR * usual
            if clear and np.linalg.norm(followed - moved) > np.linalg.norm(moved) / 2:
                raise UserError(
                    f"{self.server.name} was handed new weights and answers as with the old; start it anew."
                )
        if self._known is None or clear:
            self._known = reading
        self._last = reading

    def still(self) -> None:
        """To be called after sampling.

        Raises:
            UserError: the server's weights are no longer those handed over.
        """
        assert self._last is not None
        found = np.concatenate([answer.read for answer in self._ask()])
        off = np.abs(found - self._last.server_read).mean()
        if not off <= self.most:
            raise UserError(
                f"{self.server.name} has other weights than it was handed ({off:.2g} nats a token): it was "
                "started anew, or somebody else uses it; the same command goes on from the last checkpoint."
            )

    def _ask(self) -> list[Answer]:
        async def ask_all() -> list[Answer]:
            async with self.server.asking() as ask:
                return [answers[0] for answers in await asyncio.gather(*map(ask, self._questions))]

        return asyncio.run(ask_all())

    @torch.no_grad()
    def _read(self, model: PreTrainedModel) -> Reading:
        answers = self._ask()
        ids = [
            [*question.ids, *answer.ids] for question, answer in zip(self._questions, answers, strict=True)
        ]
        ids_NL = torch.tensor(ids, device=model.device)
        was_training = model.training
        model.eval()
        logits_NLV = model(input_ids=ids_NL, attention_mask=torch.ones_like(ids_NL)).logits[:, :-1].float()
        model.train(was_training)
        logits_NLV[:, READ - 1 :] /= TEMPERATURE
        logp_NL = logits_NLV.log_softmax(-1).gather(-1, ids_NL[:, 1:, None])[..., 0].double().cpu().numpy()
        server_read = np.array([answer.read for answer in answers])
        server = np.array([answer.read + answer.logp for answer in answers])
        trainer_read = logp_NL[:, : READ - 1]
        return Reading(server_read.ravel(), trainer_read.ravel(), server.ravel(), logp_NL.ravel())


def _questions(vocabulary: int) -> list[Question]:
    ids = stream(0, "hand-over check").integers(vocabulary, size=(TEXTS, READ)).tolist()
    return [
        Question(text, 1, SAID, (), temperature=TEMPERATURE, top_p=1.0, seed=number, read=True)
        for number, text in enumerate(ids)
    ]
