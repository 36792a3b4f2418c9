"""Sampling in tests: one call from a model to its trajectories."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Request
from score_core.rollout.trajectories import Trajectories, assemble


def sample(
    model: PreTrainedModel,
    conversation: Conversation,
    prompts: Sequence[list[int]],
    attempts: int,
    **options: Any,
) -> tuple[Trajectories, Tensor]:
    """What the built-in engine samples, and its log-probabilities (N, attempts)."""
    engine = BuiltinEngine()
    engine.load(model)
    sampled = engine.sample(conversation, Request(prompts, attempts, **options))
    pad_id = conversation.end_ids[0]
    found = assemble(sampled.segments, sampled.truncated, pad_id, model.device, sampled.logp)
    return found, found.logp_NT
