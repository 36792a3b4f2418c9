"""The section `reward` for tests of what reads nothing else."""

from typing import Any

from score_core.config.reward import Reward
from tests.configs import config


def reward(**changes: Any) -> Reward:
    """A valid section with `changes`."""
    return config(reward=changes).reward
