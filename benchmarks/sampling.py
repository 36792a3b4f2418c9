"""Tokens a second that each engine samples, beside plain `generate`, and how near the memory's limit that is.

    .venv/bin/python -m benchmarks.sampling                    # a few minutes on 2 quiet cores
    .venv/bin/python -m benchmarks.sampling --shape 1.5B       # on a GPU

Two turns of every trajectory, by a Qwen2 of random weights, whose answers almost never end before their
limit. These take turns: the built-in engine; transformers' `generate`, which reads each dialogue anew for its
second turn; and vLLM, where `make vllm` has set it up. In bf16 on a GPU, in float32 on a CPU.

A step of decoding reads all weights once and the cache of every row: `gigabytes_a_second` counts that as if
all rows went together, and `share` is its part of what a copy moves a second on this machine. Writes
benchmarks/sampling.csv.
"""

import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import GenerationConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

from benchmarks.ceilings import ceilings, seconds_of
from benchmarks.tables import markdown
from score_core.config.runtime import Runtime
from score_core.embedded.addition_model import make_tokenizer
from score_core.models.folders import load_model, save_model
from score_core.models.memory import Shape
from score_core.problems import Problem
from score_core.rollout.conversation import Conversation, load_conversation
from score_core.rollout.engines import make_engine
from score_core.rollout.engines.engine import Engine, Request
from tasks.runner.exits import parser_of
from tasks.runner.sampler import sampler
from tests.configs import runtime
from tests.small_run import small_config


@dataclass(frozen=True)
class Case:
    """A model's shape, and what it is to sample; lengths in tokens."""

    config: dict[str, Any]
    prompts: int
    samples: int
    prompt: int
    answer: int


CASES = {
    "small": Case(
        {
            "vocab_size": 2048,
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
        },
        *(8, 8, 100, 50),
    ),
    "1.5B": Case(
        {
            "vocab_size": 151_936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        *(32, 8, 200, 400),
    ),
}


def generate(model: PreTrainedModel, rows: list[list[int]], longest: int, end: int) -> list[list[int]]:
    """An answer to each row, by the model's own `generate`."""
    width = max(map(len, rows))
    ids = torch.tensor([[end] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    settings = GenerationConfig(
        do_sample=True, top_k=0, max_new_tokens=longest, eos_token_id=end, pad_token_id=end
    )
    with torch.no_grad():
        whole = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    found = [row[width:] for row in whole.tolist()]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in found]


def by_generate(model: PreTrainedModel, conversation: Conversation, request: Request) -> int:
    """Samples both turns; returns the tokens."""
    longest, end = conversation.settings.max_new_tokens, conversation.end_ids[0]
    rows = [prompt for prompt in request.prompts for _ in range(request.samples)]
    firsts = generate(model, rows, longest, end)
    both = zip(rows, firsts, strict=True)
    rows = [prompt + first + conversation.continuation(first, 1) for prompt, first in both]
    return sum(map(len, firsts + generate(model, rows, longest, end)))


def by_engine(engine: Engine, conversation: Conversation, request: Request) -> int:
    """The same with one of ours."""
    return sum(len(ids) for row in engine.sample(conversation, request).logp for ids in row)


def bytes_read(case: Case, shape: Shape, between: int) -> float:
    """Of weights and cache, in all steps of decoding.

    Args:
        between: tokens of the instruction between the turns.
    """
    steps = 2 * case.answer
    middle = case.prompt + (steps + between) / 2  # the mean length of a dialogue
    return steps * (
        shape.parameters * shape.dtype + case.prompts * case.samples * middle * shape.token_cached
    )


def measure(case: Case, root: Path, settings: Runtime, rounds: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """The table, and the ceilings."""
    device, dtype = ("cuda", "bfloat16") if torch.cuda.is_available() else ("cpu", "float32")
    torch.set_num_threads(settings.threads)
    tokenizer, base = make_tokenizer(), root / "base"
    config = Qwen2Config(
        **case.config, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(0)
    save_model(Qwen2ForCausalLM(config).to(getattr(torch, dtype)), tokenizer, base)
    lengths = {"max_new_tokens": case.answer, "max_prompt_tokens": case.prompt}
    local = {"source": "local", "path": str(base), "dtype": dtype}
    parameters = small_config(conversation=lengths, model=local)
    conversation = load_conversation(base, parameters.conversation, 2)
    around = len(conversation.prompt(Problem("a", "", ("1",))))
    texts = [f"{at:0{case.prompt - around}d}" for at in range(case.prompts)]
    prompts = [conversation.prompt(Problem(text, text, ("1",))) for text in texts]
    noise = np.random.default_rng(0).random((case.prompts * case.samples, 2, case.answer))
    request = Request(prompts, 2, case.samples, noise)
    model = load_model(base, dtype, device)
    runs: dict[str, Callable[[], int]] = {"generate": lambda: by_generate(model, conversation, request)}
    found: dict[str, list[tuple[float, int]]] = {}
    with ExitStack() as open_engines:
        for name in ["builtin", *(["vllm"] if Path(settings.vllm.python).exists() else [])]:
            used = settings
            if name == "vllm":
                address = open_engines.enter_context(sampler(parameters, settings, base, 2, root))
                used = settings.model_copy(
                    update={"launch": settings.launch.model_copy(update={"sampler": address})}
                )
            engine = make_engine(name, used, parameters.dtype)
            engine.load(model)
            runs[name] = lambda engine=engine: by_engine(engine, conversation, request)
        for number in range(rounds + 1):  # the first warms up
            for name, run in runs.items():
                tokens: list[int] = []
                seconds = seconds_of(lambda run=run, tokens=tokens: tokens.append(run()))
                if number:
                    found.setdefault(name, []).append((seconds, tokens[0]))
    limits = ceilings(device, getattr(torch, dtype))
    shape = Shape.of(base, config, parameters.dtype)
    read = bytes_read(case, shape, len(conversation.instruction))
    rows = []
    for name, laps in found.items():
        seconds = statistics.median(seconds for seconds, _ in laps)
        rows.append(
            {
                "engine": name,
                "device": device,
                "trajectories_a_second": round(case.prompts * case.samples / seconds, 1),
                "tokens_a_second": round(statistics.median(count / taken for taken, count in laps)),
                "gigabytes_a_second": round(1e-9 * read / seconds, 2),
                "share": round(read / seconds / limits["copy_bytes"], 2),
            }
        )
    return pd.DataFrame(rows), limits


if __name__ == "__main__":
    parser = parser_of("benchmarks.sampling", __doc__)
    parser.add_argument("--shape", choices=CASES, default="small", help="the model and its work (small)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="times each engine (5)")
    given = parser.parse_args()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        started = runtime(launch={"sampler": "start"}, threads=2)
        table, limits = measure(CASES[given.shape], Path(folder), started, given.rounds)
    table.to_csv("benchmarks/sampling.csv", index=False)
    print(markdown(list(table), table.to_numpy()))
    print(json.dumps(limits, indent=2))
