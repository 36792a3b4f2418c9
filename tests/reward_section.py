"""The section `reward` for tests of what reads nothing else."""

from typing import Any

from score_core.config.reward import Reward


def reward(**changes: Any) -> Reward:
    """A valid section with `changes`."""
    section = {
        "extractor": "gsm8k_hash",
        "matcher": "integer",
        "marker": "Final Answer: The final answer is",
        "seconds": 5.0,
        "terms": [{"name": "match", "weight": 1.0}],
    }
    return Reward.model_validate({**section, **changes})
