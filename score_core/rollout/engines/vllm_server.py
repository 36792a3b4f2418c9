"""What is said to a vLLM server (0.32): token ids in, ids and log-probabilities out, and weights by folder.

Its development routes take weights from whoever asks, so it must be reached from this machine or a private
network only. Nothing that it answers is believed before counts, lengths and order are checked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from score_core.errors import UserError, one_line, refusing

AT_ONCE = 256  # requests on their way; each takes a file of this process, which may open a thousand
CONNECT = 10.0  # seconds
# Seconds after which an idle connection is not used again. The server closes its own after 5, as httpx would:
# a question sent at that moment is lost.
IDLE = 1.0
LOAD_ADAPTER = "/v1/load_lora_adapter"
REMEDY = (
    "its log says why (.runs/<stage>/server.log where the stage started it); then run the same command "
    "again, which goes on from the last checkpoint"
)


class Refused(UserError):  # noqa: N818 - says what it is
    """The server answers that it does not do this."""


@dataclass(frozen=True)
class Question:
    """What is to be continued.

    Attributes:
        ids: all that was said before.
        samples: how many answers, whose random numbers differ.
        limit: most tokens of an answer.
        end_ids: tokens that end one; nothing else does.
        temperature: 0 is greedy.
        top_p: see `Request`.
        seed: of the first answer; the server adds 1 for each further one.
        read: also give the log-probabilities of the tokens in `ids`.
    """

    ids: Sequence[int]
    samples: int
    limit: int
    end_ids: Sequence[int]
    temperature: float
    top_p: float
    seed: int
    read: bool = False

    def body(self, model: str) -> dict[str, Any]:
        """As the server's route `/v1/completions` wants it; what is not said would be the server's choice."""
        return {
            "model": model,
            "prompt": [list(self.ids)],
            "n": self.samples,
            "max_tokens": self.limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": self.seed,
            "stop_token_ids": list(self.end_ids),
            "ignore_eos": True,
            "logprobs": 0,
            "prompt_logprobs": 0 if self.read else None,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }


@dataclass(frozen=True)
class Answer:
    """Ids with their log-probabilities in nats, and those of the question's from the second on, if read."""

    ids: list[int]
    logp: list[float]
    read: list[float]


Ask = Callable[[Question], Awaitable[list[Answer]]]


class VllmServer:
    """A server at an address. All that it is asked raises UserError where it does not answer, or not that.

    Args:
        address: http://HOST:PORT.
        timeout: seconds for one request, its waiting for others included.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        # Not through a proxy that the environment names.
        self._options: dict[str, Any] = {
            "base_url": address,
            "timeout": httpx.Timeout(timeout, connect=CONNECT),
            "trust_env": False,
        }

    def load(self, folder: Path) -> None:
        """Has it take the weights in `folder`, and forget what it computed with those before."""
        self.drop_adapter()
        # Where it was started without weights, it would make some up once more.
        self._call("update_config", overrides={"load_config": {"load_format": "auto"}})
        self._call("reload_weights", weights_path=str(folder))
        if self._content(self._send("POST", "/reset_prefix_cache")).get("success") is False:
            raise self._wrong("keeps what it computed with the weights before")

    def _call(self, method: str, **arguments: Any) -> None:
        self._checked(self._send("POST", "/collective_rpc", {"method": method, "kwargs": arguments}))

    def takes_adapters(self) -> bool:
        """Whether it can be given one beside its weights: whether it has the route for that."""
        return self._send("POST", LOAD_ADAPTER, {}).status_code != httpx.codes.NOT_FOUND

    def load_adapter(self, folder: Path) -> None:
        """Has it take the adapter in `folder`, in place of the one before.

        What it computed with others it tells apart by their names, so each folder needs one of its own.

        Raises:
            Refused: it has no room for its rank, or cannot compute with it.
        """
        self.drop_adapter()
        self._checked(self._send("POST", LOAD_ADAPTER, {"lora_name": folder.name, "lora_path": str(folder)}))

    def drop_adapter(self) -> None:
        """Has it answer by its weights alone."""
        for name in self._names()[1:]:
            self._checked(self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name}))

    def model(self) -> str:
        """What it calls its adapter, or where it has none its weights."""
        return self._names()[-1]

    def _names(self) -> list[str]:
        """Of its weights, and of the adapters that it has."""
        content = self._content(self._send("GET", "/v1/models"))
        with self._reading():
            cards = [(str(card["id"]), card.get("parent")) for card in content["data"]]
            return [cards[0][0], *(name for name, parent in cards if parent)]

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        with self._reaching(), httpx.Client(**self._options) as client:
            return client.request(method, path, json=body)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Ask]:
        """Connections for many questions at once: a function from a question to its answers."""
        model, turn = self.model(), asyncio.Semaphore(AT_ONCE)
        limits = httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=IDLE)
        async with httpx.AsyncClient(**self._options, limits=limits) as client:

            async def ask(question: Question) -> list[Answer]:
                async with turn:
                    with self._reaching():
                        response = await client.post("/v1/completions", json=question.body(model))
                    return self._answers(question, response)

            yield ask

    def _answers(self, question: Question, response: httpx.Response) -> list[Answer]:
        """As many answers as were asked for, each whole and to this question."""
        content = self._content(response)
        with self._reading():
            choices = sorted(content["choices"], key=lambda choice: int(choice["index"]))
            numbers = [choice["index"] for choice in choices]
            asked = [choice["prompt_token_ids"] for choice in choices]
            answers = [_answer(choice, question.read) for choice in choices]
        if numbers != list(range(question.samples)):
            raise self._wrong(f"gave answers {numbers} where {question.samples} were asked for")
        if any(ids != list(question.ids) for ids in asked):
            raise self._wrong("answered another question than was asked")
        for answer in answers:
            ended = [token in question.end_ids for token in answer.ids]
            size = len(ended)
            if not 0 < size <= question.limit or any(ended[:-1]) or not (ended[-1] or size == question.limit):
                raise self._wrong(
                    f"gave {size} tokens that end neither with an end token nor after {question.limit}"
                )
            if len(answer.logp) != len(answer.ids):
                raise self._wrong(f"gave {len(answer.logp)} log-probabilities of {len(answer.ids)} tokens")
        return answers

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.status_code != httpx.codes.OK:
            said = " ".join(response.text.split())[:200]
            raise Refused(f"{self.name} answered {response.status_code} ({said}); {REMEDY}.")
        return response

    def _content(self, response: httpx.Response) -> dict[str, Any]:
        if not self._checked(response).content:
            return {}
        with self._reading():
            return dict(response.json())

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise UserError(f"{self.name} does not answer ({one_line(error)}); {REMEDY}.") from error

    def _reading(self) -> AbstractContextManager[None]:
        return refusing(f"{self.name}: an answer that cannot be read", REMEDY)

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{self.name} {what}; {REMEDY}.")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"launch.sampler: the server at {self.address}"


def _answer(choice: dict[str, Any], read: bool) -> Answer:
    """One choice of a response, taken literally."""
    ids = [int(token) for token in choice["token_ids"]]
    said = choice["logprobs"]
    if said["tokens"] != [f"token_id:{token}" for token in ids]:
        raise ValueError("log-probabilities of other tokens than it gave")
    of_prompt = choice["prompt_logprobs"][1:] if read else []
    tokens = choice["prompt_token_ids"][1:] if read else []
    return Answer(
        ids,
        [float(value) for value in said["token_logprobs"]],
        [float(there[str(token)]["logprob"]) for there, token in zip(of_prompt, tokens, strict=True)],
    )
