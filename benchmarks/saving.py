"""How much of training's time its checkpoints take: their promise is a tenth at most.

    .venv/bin/python -m benchmarks.saving              # 100 million parameters, some minutes on 2 cores
    .venv/bin/python -m benchmarks.saving --seconds 0  # saves as often as it may

A Qwen2 of 100 million parameters with random weights, all of them trained on sums, so that a checkpoint has
1.2 GB; validation comes every second step. `waited` says for how long training stood still to save, `sealed`
how long hashing and flushing went on beside it. Prints a markdown table.
"""

import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.tables import markdown
from score_core.checkpointing.checkpoints import Checkpoints, size_of
from score_core.checkpointing.resumable_trainer import ResumableTrainer, _Saving
from score_core.embedded.addition import make_problems
from score_core.embedded.addition_model import make_tokenizer
from score_core.models.folders import save_model
from score_core.problems import write_problems
from tasks.runner.exits import parser_of
from tests.configs import runtime
from tests.small_run import folders, small_config, train_stage

STEPS, VALIDATE_EVERY = 60, 2


def prepare(root: Path) -> None:
    """Problems, and a large model that answers none of them."""
    data, tokenizer = small_config().data, make_tokenizer()
    (root / "data").mkdir()
    for split, problems in make_problems(data, seed=0).items():
        write_problems(root / "data", split, problems)
    size = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 11}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 12}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **size, **heads, **ids))
    save_model(model, tokenizer, root / "base")


def timed(kind: type, name: str) -> list[float]:
    """The seconds that each call of a method takes from now on."""
    method: Callable[..., Any] = getattr(kind, name)
    seconds: list[float] = []

    @wraps(method)
    def measure(*given: Any, **named: Any) -> Any:
        began = time.monotonic()
        result = method(*given, **named)
        seconds.append(time.monotonic() - began)
        return result

    setattr(kind, name, measure)
    return seconds


def main() -> None:
    """Trains and prints."""
    parser = parser_of("benchmarks.saving", __doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="checkpoints.every_seconds")
    settings = runtime(threads=2, checkpoints={"every_seconds": parser.parse_args().seconds or 1e-9})
    stage = {
        "steps": STEPS,
        "prompts_per_step": 2,
        "samples_per_prompt": 2,
        "validate_every": VALIDATE_EVERY,
        "validation_problems": 16,
    }
    waited, sealed = timed(ResumableTrainer, "_save_checkpoint"), timed(Checkpoints, "seal")
    tried, whole = timed(_Saving, "on_train_begin"), timed(ResumableTrainer, "train")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        target = folders(Path(folder), Path(folder), "stage2")
        train_stage("stage2", small_config(stage2=stage), settings, target)
        size = size_of(next(target.work.glob("*/checkpoint-*")))
    header = ["checkpoint, GB", "steps", "seconds", "saves", "tried", "waited", "sealed", "share"]
    seconds = f"{sum(whole):.0f}", len(waited), *(f"{sum(part):.1f}" for part in (tried, waited, sealed))
    share = sum(tried + waited) / sum(whole)
    print(markdown(header, [[f"{size / 1e9:.2f}", STEPS, *seconds, f"{share:.1%}"]]))


if __name__ == "__main__":
    main()
