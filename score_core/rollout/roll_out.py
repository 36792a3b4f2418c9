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

SAMPLING, GRADING = "sampling", "grading"


@dataclass(frozen=True)
class Rollout:
    """N judged trajectories, those of a problem next to each other.

    Attributes:
        trajectories: the dialogues.
        texts: the attempts as text, texts[n][t - 1], without special tokens.
        verdicts: verdicts[n][t - 1].
        games: games[t - 1], where the policy has compared its answers (self_judge.py); players are rows.
    """

    trajectories: Trajectories
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
        """Whether an attempt's answer is another than the one before it, (N, T - 1)."""
        changed = [[a.extracted != b.extracted for a, b in pairwise(row)] for row in self.verdicts]
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
        noise: for the problem at an index, (samples, attempts, M) numbers in [0, 1).
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
    batches = [kind[start : start + size] for kind in kinds for start in range(0, len(kind), size)]

    parts: list[Sampled] = []
    for batch in batches:
        request = Request(
            [conversation.prompt(problems[at]) for at in batch],
            attempts,
            samples,
            np.concatenate([noise(at) for at in batch]) if noise else None,
            temperature,
            top_p,
            [ids for at in batch for ids in given.get(at, ())] or None,
        )
        with part(SAMPLING):
            parts.append(engine.sample(conversation, request))
        # Once a batch, after its last token: nothing that was chosen without probabilities gets any further.
        if not all(isfinite(value) for row in parts[-1].logp for attempt in row for value in attempt):
            raise NotFinite("the model's probabilities of tokens are not finite")
        if progress:
            progress(len(batch))
    drawn = [at * samples + number for batch in batches for at in batch for number in range(samples)]
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
    texts = conversation.texts(trajectories.attempts)
    with part(GRADING):
        verdicts = _verdicts(grader, problems, trajectories, texts)
    return Rollout(trajectories, texts, verdicts)


def _verdicts(
    grader: Grader, problems: Sequence[Problem], trajectories: Trajectories, texts: list[list[str]]
) -> list[list[Graded]]:
    """verdicts[n][t - 1]; graded problem by problem and attempt by attempt, a group at a time."""
    ids, truncated = trajectories.attempts, trajectories.truncated_NT.tolist()
    attempts, samples = len(texts[0]), len(texts) // len(problems)
    groups = []
    for at, problem in enumerate(problems):
        members = range(at * samples, (at + 1) * samples)
        for attempt in range(1, attempts + 1):
            groups.append(
                Ungraded(
                    problem,
                    attempt,
                    texts=[texts[n][attempt - 1] for n in members],
                    tokens=[ids[n][attempt - 1] for n in members],
                    truncated=[truncated[n][attempt - 1] for n in members],
                )
            )
    graded = grader.grade(groups)
    by_problem = [graded[start : start + attempts] for start in range(0, len(graded), attempts)]
    return [list(row) for groups in by_problem for row in zip(*groups, strict=True)]
