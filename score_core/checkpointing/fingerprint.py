"""A short name for everything that a training run's result depends on.

Checkpoints lie in a folder of that name, so a run never resumes from one with other parameters, seed, data,
models, code or libraries. What changes no result, or only its rounding (log level, tracker, batching), is
left out.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.distributed import launched
from score_core.files import digest, tree_digests

# What computes, and what a checkpoint's files are written by.
LIBRARIES = ("accelerate", "deepspeed", "numpy", "peft", "tokenizers", "torch", "transformers")
SECTIONS = ("conversation", "lora", "model", "reward", "seed")  # that training reads beside its own


def fingerprint(
    config: Config,
    runtime: Runtime,
    stage: str,
    inputs: Sequence[Path],
    code: Sequence[Path],
    dialogue: str,
) -> str:
    """16 hexadecimal digits, for a run of `config`'s stage of training from the files in `inputs`.

    Args:
        stage: its section's name.
        inputs: files and folders of models and data, in a fixed order; their names do not count.
        code: files and folders of the code that computes.
        dialogue: what is said around problems and attempts, as the chat template writes it.
    """
    parameters = config.model_dump(mode="json", include={*SECTIONS})
    sampling = config.stage(stage).sampling
    # A stage that starts from its reference names it twice, and large weights take minutes.
    digests = {path: _digests(path) for path in {*inputs, *code}}
    content = {
        "parameters": {**parameters, stage: config.stage(stage).model_dump(mode="json")},
        "dialogue": dialogue,
        "inputs": [digests[path] for path in inputs],
        "code": [digests[path] for path in code],
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        # Another number adds up in another order, and sharded states fit one number only.
        "threads": runtime.threads,
        "processes": launched(),
        "launch": runtime.launch.strategy,
        # Where any may sample, a run goes on with another; a reproducible one's bits are its own.
        "engine": "any" if sampling == "any" else runtime.engine_for(sampling),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _digests(path: Path) -> object:
    return digest(path) if path.is_file() else tree_digests(path)
