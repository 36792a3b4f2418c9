"""Dialogues put together from the attempts of others: what they say, and which of them were really had."""

from pathlib import Path

import pytest
import torch

from score_core.models.folders import end_token_ids, load_model, load_tokenizer
from score_core.rl.dialogues import in_place, rearrange
from score_core.rollout.conversation import Conversation
from score_core.rollout.trajectories import assemble
from tests.small_run import small_config


@pytest.fixture
def conversation(small_run: Path) -> Conversation:
    tokenizer = load_tokenizer(small_run / "base")
    ends = end_token_ids(tokenizer, load_model(small_run / "base").generation_config)
    return Conversation(small_config().conversation, tokenizer, ends)


def test_attempts_move_with_their_probabilities_and_get_the_instruction_between(
    conversation: Conversation,
) -> None:
    """Three first attempts, one of them cut off; pairs of the first two, and of the last with itself."""
    end, *asked = conversation.instruction
    answers, logp = [[4, end], [5, 6, 7], [8, end]], [[-1.0, -0.5], [-2.0, -3.0, -4.0], [-5.0, -0.25]]
    trajectories = assemble(
        [(([10, 11], 0), (ids, 1)) for ids in answers],
        [[False], [True], [False]],
        pad_id=0,
        logp=[[row] for row in logp],
    )
    made = rearrange(trajectories, torch.tensor([[0, 1], [1, 0], [2, 2]]), conversation)
    assert made.segments == (
        (([10, 11], 0), ([4, end], 1), (asked, 0), ([5, 6, 7], 2)),
        (([10, 11], 0), ([5, 6, 7], 1), ([end, *asked], 0), ([4, end], 2)),
        (([10, 11], 0), ([8, end], 1), (asked, 0), ([8, end], 2)),
    )
    assert made.truncated_NT.tolist() == [[False, True], [True, False], [False, False]]
    assert made.logp_NT.tolist() == [[-1.5, -9.0], [-9.0, -1.5], [-5.25, -5.25]]
    assert made.logp_P.tolist()[:5] == [-1.0, -0.5, -2.0, -3.0, -4.0]


def test_an_attempt_is_in_place_where_all_before_it_are() -> None:
    two = torch.tensor([[0, 1], [2, 3], [2, 1], [0, 0], [1, 1], [4, 5]])
    assert in_place(two, 2).tolist() == [
        [True, True],
        [True, True],
        [True, False],
        [True, False],
        [False, False],  # a second attempt that stands first
        [True, True],
    ]
    # Of one attempt each: the next trajectory's is no second attempt of this one.
    assert in_place(torch.tensor([[0, 1], [1, 1]]), 1).tolist() == [[True, False], [True, False]]
    assert in_place(torch.tensor([[0, 4, 2], [3, 4, 5]]), 3).tolist() == [[True, False, False], [True] * 3]
