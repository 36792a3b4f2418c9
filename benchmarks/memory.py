"""What score_core/models/memory.py reckons beside what a process really holds, on a CPU.

    .venv/bin/python -m benchmarks.memory      # ten minutes; runs differ by a tenth or two

For each shape, a Qwen2 with random weights, in a process of its own each time: the most memory while one
micro-batch goes forward and backward, while a batch is sampled, and while prompts, or instructions after what
is in the cache, are read by a model in bf16 with an adapter, less what the process held before.
Writes benchmarks/memory.csv; ends with 1 if a figure is off by more than a fifth.
"""

import ctypes
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of

# hidden, intermediate, layers, key-value heads of 64, vocabulary
SHAPES = {"small vocabulary": (512, 2048, 12, 8, 2_000), "large vocabulary": (384, 1536, 8, 2, 60_000)}
ROWS, LENGTH = 24, 320  # ten times as many rows while sampling
DIALOGUES, INSTRUCTION = 1920, 20  # where heads share what attention then copies, enough for it to stand out
KINDS = ("training", "training, recomputed", "sampling", "reading")
TOLERATED = 0.2


def held() -> int:
    """Bytes that this process holds now, without what the allocator keeps of what was freed."""
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def most_held() -> int:
    """The most bytes that it has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, what: str) -> None:
    """Prints reckoned and measured bytes of one shape."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from score_core.models.memory import Shape
    from score_core.rl.logprobs import CHUNK, add_token_scoring, score
    from score_core.rollout.engines.cache import BoundedCache
    from score_core.rollout.engines.drawing import choose
    from score_core.rollout.trajectories import assemble

    hidden, intermediate, layers, heads, vocabulary = SHAPES[name]
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=heads,
    )
    model = Qwen2ForCausalLM(config)
    parameters = sum(weight.numel() for weight in model.parameters())
    shape = Shape.from_config(parameters, config, "float32")
    half = LENGTH // 2
    if what.startswith("reading"):
        lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(model.bfloat16().requires_grad_(False), lora).eval()
        shape = replace(shape, dtype=2)
        ids = torch.ones(DIALOGUES if what == "reading on" else 10 * ROWS, LENGTH, dtype=torch.long)
        mask, cache, new = ids.clone(), BoundedCache(config, *ids.shape), ids
        mask[0, 0] = 0  # one prompt is shorter
        if what == "reading on":
            said = torch.zeros(1, dtype=torch.bfloat16).expand(
                len(ids), config.num_key_value_heads, LENGTH - INSTRUCTION, 64
            )
            for layer in range(layers):
                cache.update(said, said, layer)
            new = ids[:, :INSTRUCTION]
        before = held()
        with torch.no_grad():
            adapted(
                input_ids=new, attention_mask=mask, past_key_values=cache, logits_to_keep=torch.tensor([-1])
            )
        # A cache is allocated by the first that is read.
        reckoned = len(ids) * shape.row_read(new.shape[1], LENGTH)
        reckoned += ids.numel() * shape.token_cached if new is ids else 0
    elif what == "sampling":
        model.eval()
        before = held()
        with torch.no_grad():
            rows = 10 * ROWS
            cache = BoundedCache(config, rows, LENGTH)
            ids = torch.ones(rows, 1, dtype=torch.long)
            for _ in range(LENGTH):
                logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
                choose(logits, torch.rand(rows, dtype=torch.float64), 1.0, 1.0)
        reckoned = rows * (LENGTH * shape.token_cached + shape.row_logits)
    else:
        checkpointing = what == "training, recomputed"
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        add_token_scoring(model)
        row = (([5] * half, 0), ([6] * (LENGTH - half), 1))
        trajectories = assemble([row] * ROWS, [[False]] * ROWS, pad_id=0)
        before = held()
        score(model, trajectories, 1.0).logp_P.sum().backward()
        scored = min(CHUNK, ROWS * (LENGTH - half) * vocabulary)
        reckoned = shape.scoring(ROWS * LENGTH, scored, checkpointing)
    print(reckoned, most_held() - before)


def main() -> None:
    """Measures all, or one in this process."""
    parser = parser_of("benchmarks.memory", __doc__)
    parser.add_argument("--measure", nargs=2, help="shape, what: one measurement, printed")
    given = parser.parse_args().measure
    if given:
        measure(*given)
        return
    rows = []
    for name in SHAPES:
        for what in KINDS if name == "small vocabulary" else (*KINDS, "reading on"):
            line = [sys.executable, "-m", "benchmarks.memory", "--measure", name, what]
            said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
            reckoned, found = map(int, said.split())
            rows.append((name, what, reckoned / 1e9, found / 1e9, reckoned / found))
    table = pd.DataFrame(rows, columns=["shape", "what", "reckoned_gb", "measured_gb", "ratio"]).round(3)
    table.to_csv(Path("benchmarks/memory.csv"), index=False)
    print(markdown(list(table), table.to_numpy()))
    sys.exit(int((table.ratio - 1).abs().max() > TOLERATED))


if __name__ == "__main__":
    main()
