"""Whole configurations for tests of the parts that read only a section or two.

They start from what stands in conf/ and runtime.yaml, so that a test states only what it is about.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from score_core.algorithms import SETTINGS
from score_core.config.parsing import parse_config, parse_runtime
from score_core.config.reward import Reward
from score_core.config.runtime import Runtime
from score_core.config.schema import Config

ROOT = Path(__file__).resolve().parent.parent

# What a section of another source than the test's own starts from; `default` and `gsm8k` have the others.
LOCAL_DATA = {
    "source": "local",
    "path": "data/fixtures/gsm8k",
    "columns": {"id": None, "problem": "question", "answer": "answer"},
    "train_split": "train",
    "test_split": "test",
    "validation_share": 0.1,
    "conflicting_answers": "refuse",
    "sizes": {"train": None, "validation": None, "test": None},
}
LOCAL_MODEL = {"source": "local", "path": "models/mine", "dtype": "float32", "quantize": None}
TINY_MODEL = {"source": "tiny", "family": "qwen2"}


def config(**sections: Any) -> Config:
    """A small valid configuration with the keys of `sections` in place of its own.

    `config(training={"steps": 2}, stage2={"alpha": 3})` changes two keys. `data` and `model` of another
    source are complete too: `config(data={"source": "addition", "digits": 2}, model={"source": "addition"})`.

    Raises:
        UserError: as for a params.yaml with these values, which is called `test`.
    """
    return parse_config(content(**sections), SETTINGS, "test")


def reward(**changes: Any) -> Reward:
    """A valid section `reward` with `changes`, for what reads nothing else."""
    return config(reward=changes).reward


def runtime(**settings: Any) -> Runtime:
    """The settings of runtime.yaml, with these instead: `runtime(threads=1, launch={"processes": 2})`."""
    return parse_runtime(_over(_read("runtime.yaml"), settings), "test")


def content(**sections: Any) -> dict[str, Any]:
    """What `config` parses: the sections of a params.yaml, for tests that take keys out."""
    addition, hub = _read("conf/profile/default.yaml"), _read("conf/profile/gsm8k.yaml")
    own = {
        "profile": "test",
        "seed": 5,
        "conversation": {
            "folder": ".",
            "first": "prompts/tagged/first.txt",
            "retry": "prompts/tagged/retry.txt",
            "max_prompt_tokens": 1024,
            "max_new_tokens": 512,
        },
        "reward": {"extractor": "gsm8k_hash", "matcher": "integer"},
        "training": {"learning_rate": 0.001},
    }
    complete = {
        "data": [LOCAL_DATA, addition["data"], hub["data"]],
        "model": [TINY_MODEL, LOCAL_MODEL, addition["model"], hub["model"]],
    }
    whole = _over(_over(_read("conf/stages/score.yaml"), _read("conf/base.yaml")), own)
    for name, choices in complete.items():
        source = sections.get(name, {}).get("source", choices[0]["source"])
        whole[name] = deepcopy(next((c for c in choices if c["source"] == source), {}))
    if sections.get("lora"):
        whole["lora"] = {"rank": 4, "alpha": 8, "targets": "all-linear"}
    whole = _over(whole, sections)
    for name in ("data", "model"):
        if whole[name].get("source") == "local" and name not in sections.get("watched", {}):
            whole["watched"][name] = whole[name]["path"]
    return whole


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries merged, the values of `above` in place of those of `below`."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        merged[key] = _over(inner, value) if both else deepcopy(value)
    return merged


def _read(name: str) -> dict[str, Any]:
    return deepcopy(_parsed(name))


@cache
def _parsed(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())
