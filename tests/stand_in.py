"""A server that answers as vLLM's does (0.32), over the built-in sampler: routes, fields, and tripwires.

    python -m tests.stand_in [-m MODULE] --model FOLDER --port PORT ...     with vLLM's own options

Like vLLM's it is started without weights, takes up new ones from a folder, keeps the output layer of a
model that it takes for tied, and answers from what it computed with the old weights until it is told to
forget that. It takes adapters up to a rank. `lies` makes it go wrong in further ways.
"""

import argparse
import json
import os
import threading
from contextlib import suppress
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Request

LIES = {
    "stale": "takes new weights from the second hand-over on, and leaves its own as they are",
    "no temperature": "log-probabilities are those at temperature 1",
    "missing": "one answer is missing",
    "twice": "an answer comes twice, another not at all",
    "another": "says the answer to another question",
    "cut": "an answer's last token is missing",
    "fewer": "a log-probability is missing",
    "shuffled": "choices come in another order, which their index tells",
    "remembers": "cannot forget what it computed with the weights before",
    "anew": "has random weights again after some answers",
    "dies": "ends in the middle of a request after some answers",
}


class StandIn(ThreadingHTTPServer):
    """A server on this machine, at a free port.

    Attributes:
        lies: of `LIES`.
        after: answers after which it is started anew, or dies.
        alone: whether it is a process of its own.
        asked: bodies of all requests for completions.
        loaded: folders of all hand-overs, those of adapters too.
        rank: the largest of adapters that it takes; 0 for one that was not started for any.
        longest: most tokens of a question and what it asks for.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path, port: int = 0, dummy: bool = True, rank: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.rank, self.longest = rank, 1 << 30
        self.adapters: dict[str, PreTrainedModel] = {}
        self.lies: set[str] = set()
        self.after, self.alone = 0, False
        self.asked: list[dict[str, Any]] = []
        self.loaded: list[str] = []
        self.dummy, self.config = dummy, AutoConfig.from_pretrained(str(folder))
        self.model = self._made_up()
        if not dummy:
            self.take(folder)
        # The weights that a prompt was read with, by the name that was asked.
        self.seen: dict[tuple[str, tuple[int, ...]], PreTrainedModel] = {}
        self.turn = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "StandIn":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def _made_up(self) -> PreTrainedModel:
        torch.manual_seed(99)
        config = deepcopy(self.config)
        config.tie_word_embeddings = False
        return AutoModelForCausalLM.from_config(config).eval()

    def take(self, folder: Path) -> None:
        """Loads weights as vLLM does, into new memory, so that what was read with the old ones stays."""
        self.loaded.append(str(folder))
        if "stale" in self.lies and len(self.loaded) > 1:
            return
        state = {
            name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()
        }
        if self.config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        model = deepcopy(self.model)
        missing, unknown = model.load_state_dict(state, strict=False)
        assert not unknown and set(missing) <= {"lm_head.weight"}, (missing, unknown)
        self.model = model

    def take_adapter(self, name: str, folder: Path) -> None:
        """Holds one at a time, under its name; vLLM forgets nothing of what it computed with others."""
        rank = PeftConfig.from_pretrained(str(folder)).r
        if rank > self.rank:
            raise ValueError(f"LoRA rank {rank} is greater than max_lora_rank {self.rank}.")
        if name in self.adapters:
            raise ValueError(f"The lora adapter '{name}' has already been loaded.")
        self.loaded.append(str(folder))
        if "stale" not in self.lies or len(self.loaded) < 3:
            self.adapter = PeftModel.from_pretrained(deepcopy(self.model), str(folder)).eval()
        self.adapters[name] = self.adapter

    def call(self, method: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        """`collective_rpc`."""
        if method == "update_config":
            self.dummy = kwargs["overrides"]["load_config"]["load_format"] == "dummy"
        elif method == "reload_weights":
            assert not self.dummy, "Model reloading with `dummy` format"
            self.take(Path(kwargs["weights_path"]))
        else:
            raise AttributeError(method)
        return {"results": [None]}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answers to one prompt."""
        self.asked.append(body)
        if self.after and len(self.asked) > self.after and "anew" in self.lies:
            self.model, self.after = self._made_up(), 0
            self.seen.clear()
        (prompt,) = body["prompt"]
        if len(prompt) + body["max_tokens"] > self.longest:
            raise ValueError(f"This model's maximum context length is {self.longest} tokens.")
        if "another" in self.lies:
            prompt = prompt[::-1]
        read = body["prompt_logprobs"] is not None
        named = body["model"]
        now = self.model if named == "policy" else self.adapters[named]
        model = now if read else self.seen.setdefault((named, tuple(prompt)), now)
        choices = answers(model, prompt, body, "no temperature" in self.lies)
        for choice in choices:
            choice["prompt_logprobs"] = read_logp(model, prompt) if read else None
        if not read:
            self._spoil(choices)
        return {"object": "text_completion", "model": body["model"], "choices": choices}

    def _spoil(self, choices: list[dict[str, Any]]) -> None:
        last = choices[-1]
        if "missing" in self.lies:
            choices.pop()
        if "twice" in self.lies:
            last["index"] = 0
        if "cut" in self.lies:
            for values in (last["token_ids"], last["logprobs"]["tokens"], last["logprobs"]["token_logprobs"]):
                values.pop()
        if "fewer" in self.lies:
            last["logprobs"]["token_logprobs"].pop()
        if "shuffled" in self.lies:
            choices.reverse()


def answers(
    model: PreTrainedModel, prompt: list[int], body: dict[str, Any], raw: bool
) -> list[dict[str, Any]]:
    """What the built-in engine samples, as choices; the noise of each follows from the seed and its index."""
    engine, count, limit = BuiltinEngine(), body["n"], body["max_tokens"]
    engine.load(model)
    ends = tuple(body["stop_token_ids"]) or (-1,)
    said: Any = SimpleNamespace(
        end_ids=ends, instructions=[[]], settings=SimpleNamespace(max_new_tokens=limit)
    )
    noise = None
    if body["temperature"] > 0:
        noise = np.stack([np.random.default_rng(body["seed"] + n).random((1, limit)) for n in range(count)])
    request = Request([prompt], 1, count, noise, body["temperature"], body["top_p"])
    sampled = engine.sample(said, request)
    choices = []
    for index, (segments, logp) in enumerate(zip(sampled.segments, sampled.logp, strict=True)):
        ids, values = segments[1][0], list(logp[0])
        if raw:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            values = logits.log_softmax(-1)[range(len(ids)), ids].tolist()
        names = [f"token_id:{token}" for token in ids]
        choices.append(
            {
                "index": index,
                "token_ids": list(ids),
                "prompt_token_ids": prompt,
                "logprobs": {"tokens": names, "token_logprobs": values},
                "finish_reason": "stop" if ids[-1] in ends else "length",
            }
        )
    return choices


@torch.no_grad()
def read_logp(model: PreTrainedModel, prompt: list[int]) -> list[dict[str, Any] | None]:
    """Log-probability of each token of a prompt but the first."""
    logp = model(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
    following = zip(prompt[1:], logp[:-1], strict=True)
    return [None, *({str(token): {"logprob": float(row[token])}} for token, row in following)]


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        cards = [{"id": "policy", "parent": None}]
        cards += [{"id": name, "parent": "policy"} for name in self.server.adapters]
        self._say(200, {"data": cards} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length", 0)))
        body, server = json.loads(text or "{}"), self.server
        if "dies" in server.lies and len(server.asked) >= server.after:
            if server.alone:
                os._exit(9)
            self.close_connection = True
            return
        status, said = 200, {}
        if "lora" in self.path and not server.rank:
            self._say(404, {"detail": "Not Found"})
            return
        try:
            with server.turn, torch.inference_mode():
                said = self._answer(body)
        except Exception as error:
            status, said = 500, {"error": {"message": f"{type(error).__name__}: {error}"}}
        with suppress(ConnectionError):  # who asked may have gone
            self._say(status, said)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.path == "/collective_rpc":
            return self.server.call(body["method"], body.get("kwargs", {}))
        if self.path == "/reset_prefix_cache":
            if "remembers" in self.server.lies:
                return {"success": False}
            self.server.seen.clear()
            return {"success": True}
        if self.path == "/v1/load_lora_adapter":
            self.server.take_adapter(body["lora_name"], Path(body["lora_path"]))
            return {}
        if self.path == "/v1/unload_lora_adapter":
            del self.server.adapters[body["lora_name"]]
            return {}
        return self.server.complete(body)

    def _say(self, status: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def main() -> None:
    """Serves as a process of its own; `LIES` and `AFTER` in the environment say how it goes wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", dest="module")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--max-lora-rank", type=int, default=0)
    parser.add_argument("--max-model-len", type=int, required=True)
    given, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    server = StandIn(given.model, given.port, given.load_format == "dummy", given.max_lora_rank)
    server.lies = set(filter(None, os.environ.get("LIES", "").split(",")))
    server.after = int(os.environ.get("AFTER", "0"))
    server.alone, server.longest = True, given.max_model_len
    print("stand-in is up", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
