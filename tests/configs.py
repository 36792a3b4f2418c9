"""Whole configurations for tests of the parts that read only a section or two."""

from typing import Any

from score_core.config.parsing import Config, parse


def config(**sections: Any) -> Config:
    """A small valid configuration with `sections` in place of its own."""
    content = {
        "profile": "test",
        "seed": 5,
        "data": {"source": "local", "path": "data/fixtures/gsm8k", "columns": {"problem": "question"}},
        "model": {"source": "tiny", "family": "qwen2"},
        "conversation": {"first": "prompts/tagged/first.txt", "retry": "prompts/tagged/retry.txt"},
        "reward": {"extractor": "gsm8k_hash", "matcher": "integer"},
        "evaluation": {},
        "stage1": {},
        "stage2": {},
        **sections,
    }
    return parse(Config, content, source="test")
