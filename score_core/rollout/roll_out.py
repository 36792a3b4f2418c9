"""From problems to judged trajectories: problem -> prompt -> attempts -> rewards.

Training and evaluation share this path. They differ in how many samples a problem gets and in where
the noise comes from (None in greedy evaluation).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from score_core.errors import NotFinite
from score_core.problems import Problem
from score_core.rewards.grader import Graded, Grader
from score_core.rewards.group import Ungraded
from score_core.rewards.tournament import Game
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.engine import Engine, Request, Sampled
from score_core.rollout.trajectories import Trajectories, assemble
from score_core.rollout.verification import graded_verdict, standing

SAMPLING, GRADING = "sampling", "grading"


@dataclass(frozen=True)
class Rollout:
    """N judged trajectories, those of a problem next to each other.

    Attributes:
        trajectories: the dialogues.
        labels: of the T turns, as `Conversation.labels` gives them.
        texts: the turns as text, texts[n][t - 1], without special tokens.
        verdicts: verdicts[n][t - 1]. In place of an attempt that did not take place, here and in `texts`,
            stands the one before it: the last is the final answer.
        games: games[t - 1], where the policy has compared its answers (self_judge.py); players are rows.
    """

    trajectories: Trajectories
    labels: list[str]
    texts: list[list[str]]
    verdicts: list[list[Graded]]
    games: Sequence[Sequence[Game]] = ()

    @property
    def rewards_NT(self) -> Tensor:
        """Raw rewards, before any shaping."""
        return self._tensor([[verdict.reward for verdict in row] for row in self.verdicts])

    @property
    def correct_NT(self) -> Tensor:
        """Whether the verifier accepts the attempt; what accuracy is made of."""
        return self._tensor([[verdict.correct for verdict in row] for row in self.verdicts])

    @property
    def changed_NT(self) -> Tensor:
        """Whether an attempt's answer is another than that of the attempt before it, (N, attempts - 1)."""
        attempts = [at for at, label in enumerate(self.labels) if label.startswith("t")]
        changed = [
            [row[a].extracted != row[b].extracted for a, b in pairwise(attempts)] for row in self.verdicts
        ]
        return self._tensor(changed).bool()  # of one attempt it is empty, and would be of numbers

    def _tensor(self, rows: list[list[bool]] | list[list[float]]) -> Tensor:
        return torch.tensor(rows, device=self.trajectories.input_ids_NL.device)


def roll_out(
    engine: Engine,
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
    given: Mapping[int, Sequence[list[int]]] | None = None,
    progress: Callable[[int], object] | None = None,
    part: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Rollout:
    """Answers each problem `samples` times in `attempts` attempts, and judges every attempt.

    Args:
        engine: has the model's weights.
        batch_size: trajectories sampled side by side; does not change the result.
        noise: for the problem at an index, (samples, turns, M) numbers in [0, 1).
        given: `samples` first attempts for the problem at an index, which are not sampled then.
        progress: called with the number of problems done since the last call.
        part: entered with the name of what is done, `SAMPLING` or `GRADING`; times it.

    Raises:
        NotFinite: the model gives no probabilities to sample by.
    """
    given = given or {}
    # Problems whose first attempts are given are sampled apart; batches are taken from each kind.
    kinds = [[at for at in range(len(problems)) if (at in given) == is_given] for is_given in (False, True)]
    size = max(1, batch_size // samples)
    # A problem with more samples than may be side by side is a batch alone, share by share.
    shares = [slice(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]
    batches = [
        (kind[start : start + size], share)
        for kind in kinds
        for start in range(0, len(kind), size)
        for share in shares
    ]

    parts: list[Sampled] = []
    for batch, share in batches:
        request = Request(
            [conversation.prompt(problems[at]) for at in batch],
            conversation.turns(attempts),
            share.stop - share.start,
            np.concatenate([noise(at)[share] for at in batch]) if noise else None,
            temperature,
            top_p,
            [ids for at in batch for ids in given.get(at, ())[share]] or None,
        )
        with part(SAMPLING):
            parts.append(engine.sample(conversation, request))
        # Once a batch, after its last token: nothing that was chosen without probabilities gets any further.
        if not all(isfinite(value) for row in parts[-1].logp for attempt in row for value in attempt):
            raise NotFinite("the model's probabilities of tokens are not finite")
        if progress and share.stop == samples:
            progress(len(batch))
    drawn = [
        at * samples + number for batch, share in batches for at in batch for number in range(samples)[share]
    ]
    rows = sorted(range(len(drawn)), key=drawn.__getitem__)
    segments = [dialogue for part in parts for dialogue in part.segments]
    truncated = [flags for part in parts for flags in part.truncated]
    logp = [values for part in parts for values in part.logp]
    trajectories = assemble(
        [segments[row] for row in rows],
        [truncated[row] for row in rows],
        pad_id=conversation.end_ids[0],
        device=engine.device,
        logp=[logp[row] for row in rows],
    )
    texts, labels = (
        conversation.texts(trajectories.attempts),
        conversation.labels(conversation.turns(attempts)),
    )
    with part(GRADING):
        verdicts = _verdicts(grader, problems, trajectories, texts, labels)
    if conversation.verifies:
        pairs = [zip(row, said, strict=True) for row, said in zip(texts, trajectories.attempts, strict=True)]
        texts = [standing([text if ids else None for text, ids in row]) for row in pairs]
    return Rollout(trajectories, labels, texts, verdicts)


def _verdicts(
    grader: Grader,
    problems: Sequence[Problem],
    trajectories: Trajectories,
    texts: list[list[str]],
    labels: list[str],
) -> list[list[Graded]]:
    """verdicts[n][t - 1]; graded problem by problem and attempt by attempt, a group at a time."""
    ids, truncated = trajectories.attempts, trajectories.truncated_NT.tolist()
    samples = len(texts) // len(problems)
    verdicts: list[list[Graded | None]] = [[None] * len(labels) for _ in texts]
    groups, asked = [], []
    for at, problem in enumerate(problems):
        for turn, label in enumerate(labels):
            # A dialogue with verdicts may have ended before.
            members = [n for n in range(at * samples, (at + 1) * samples) if ids[n][turn]]
            if label.startswith("v") or not members:
                continue
            groups.append(
                Ungraded(
                    problem,
                    attempt=int(label[1:]),
                    texts=[texts[n][turn] for n in members],
                    tokens=[ids[n][turn] for n in members],
                    truncated=[truncated[n][turn] for n in members],
                )
            )
            asked.append((turn, members))
    for (turn, members), found in zip(asked, grader.grade(groups), strict=True):
        for n, graded in zip(members, found, strict=True):
            verdicts[n][turn] = graded
    for n, row in enumerate(verdicts):
        for turn, label in enumerate(labels):
            if label.startswith("v") and ids[n][turn]:
                before = row[turn - 1]
                row[turn] = graded_verdict(texts[n][turn], before is not None and before.correct)
    return [standing(row) for row in verdicts]
