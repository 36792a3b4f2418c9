"""A short name for everything that a training run's result hangs on.

Checkpoints lie in a folder of that name, so a run never goes on from one whose parameters, seed, data,
models, code or libraries were others. What changes no result, or only its rounding (log level, tracker,
batching), is no part of it.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from score_core.checkpointing.import_closure import closure
from score_core.config.parsing import Config
from score_core.config.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]
# What computes, and what a checkpoint's files are written by.
LIBRARIES = ("accelerate", "deepspeed", "numpy", "peft", "tokenizers", "torch", "transformers")
SECTIONS = ("conversation", "lora", "model", "reward", "seed")  # that training reads beside its own


def fingerprint(config: Config, runtime: Runtime, section: str, inputs: Sequence[Path]) -> str:
    """16 hexadecimal digits, for a run of `config`'s stage `section` from the files in `inputs`.

    Args:
        section: "stage1" or "stage2".
        inputs: folders of models and data, each in its place; their names do not count.
    """
    conversation = config.conversation
    prompts = (conversation.system, conversation.first, conversation.retry, conversation.few_shot)
    content = {
        "parameters": config.model_dump(mode="json", include={*SECTIONS, section}),
        "prompts": [file and digest(Path(file)) for file in prompts],
        "inputs": [tree_digests(folder) for folder in inputs],
        "code": {
            path: digest(ROOT / path)
            for path in sorted(closure("score_core.rl.training", ("score_core",), ROOT))
        },
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        # Sums are taken in another order for another number, and sharded states fit that number alone.
        "threads": runtime.threads,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "launch": runtime.launch.model_dump(include={"strategy", "mixed_precision"}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def tree_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path there."""
    return {
        str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
