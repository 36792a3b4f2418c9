"""From problems to judged trajectories: problem -> prompt -> attempts -> rewards.

Training and evaluation share this path. They differ in how many samples a problem gets and in where
the noise comes from (None in greedy evaluation).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from score_core.problems import Problem
from score_core.rewards.grader import Graded, Grader
from score_core.rewards.group import Ungraded
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.builtin import sample
from score_core.rollout.trajectories import Trajectories, assemble


@dataclass(frozen=True)
class Rollout:
    """N judged trajectories, those of a problem next to each other.

    Attributes:
        trajectories: the dialogues.
        logp_NT: log-probability of each attempt in nats, as sampled.
        texts: the attempts as text, texts[n][t - 1], without special tokens.
        verdicts: verdicts[n][t - 1].
    """

    trajectories: Trajectories
    logp_NT: Tensor
    texts: list[list[str]]
    verdicts: list[list[Graded]]

    @property
    def rewards_NT(self) -> Tensor:
        """Raw rewards, before any shaping."""
        rewards = [[verdict.reward for verdict in row] for row in self.verdicts]
        return torch.tensor(rewards, device=self.logp_NT.device)

    @property
    def correct_NT(self) -> Tensor:
        """Whether the verifier accepts the attempt; what accuracy is made of."""
        correct = [[verdict.correct for verdict in row] for row in self.verdicts]
        return torch.tensor(correct, device=self.logp_NT.device)

    @property
    def changed_NT(self) -> Tensor:
        """Whether an attempt's answer is another than the one before it, (N, T - 1)."""
        answers = [[verdict.extracted for verdict in row] for row in self.verdicts]
        changed = [[a != b for a, b in pairwise(row)] for row in answers]
        return torch.tensor(changed, device=self.logp_NT.device)


def roll_out(
    model: PreTrainedModel,
    conversation: Conversation,
    grader: Grader,
    problems: Sequence[Problem],
    attempts: int,
    *,
    batch_size: int,
    samples: int = 1,
    noise: Callable[[int], np.ndarray] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    given: Callable[[int], Sequence[list[int]] | None] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Rollout:
    """Answers each problem `samples` times in `attempts` attempts, and judges every attempt.

    Args:
        batch_size: trajectories sampled side by side; does not change the result.
        noise: for the problem at an index, (samples, attempts, M) numbers in [0, 1).
        given: for the problem at an index, `samples` first attempts, or None to sample them.
        progress: called with the number of problems done since the last call.
    """
    firsts = [given(at) if given else None for at in range(len(problems))]
    # Problems whose first attempts are given are sampled apart; batches are cut from each kind.
    kinds = [[at for at, first in enumerate(firsts) if (first is None) == kind] for kind in (True, False)]
    size = max(1, batch_size // samples)
    batches = [kind[start : start + size] for kind in kinds for start in range(0, len(kind), size)]

    parts: list[tuple[Trajectories, Tensor]] = []
    for batch in batches:
        parts.append(
            sample(
                model,
                conversation,
                [conversation.prompt(problems[at]) for at in batch],
                attempts,
                samples=samples,
                noise=np.concatenate([noise(at) for at in batch]) if noise else None,
                temperature=temperature,
                top_p=top_p,
                given=[ids for at in batch for ids in firsts[at] or ()] or None,
            )
        )
        if progress:
            progress(len(batch))
    drawn = [at * samples + number for batch in batches for at in batch for number in range(samples)]
    rows = sorted(range(len(drawn)), key=drawn.__getitem__)
    segments = [pieces for part, _ in parts for pieces in part.segments]
    trajectories = assemble(
        [segments[row] for row in rows],
        torch.cat([part.truncated_NT for part, _ in parts])[rows],
        pad_id=conversation.end_ids[0],
        device=model.device,
    )
    texts = conversation.texts(trajectories.attempts)
    ids, truncated = trajectories.attempts, trajectories.truncated_NT.tolist()
    groups = []
    for at, problem in enumerate(problems):
        members = range(at * samples, (at + 1) * samples)
        for turn in range(attempts):
            cells = [(texts[n][turn], ids[n][turn], truncated[n][turn]) for n in members]
            groups.append(Ungraded(problem, turn + 1, *zip(*cells, strict=True)))
    graded = grader.grade(groups)
    # A problem's groups, one an attempt, become rows of its members.
    verdicts = [
        list(row)
        for start in range(0, len(graded), attempts)
        for row in zip(*graded[start : start + attempts], strict=True)
    ]
    return Rollout(
        trajectories,
        torch.cat([logp_NT for _, logp_NT in parts])[rows],
        texts,
        verdicts,
    )
