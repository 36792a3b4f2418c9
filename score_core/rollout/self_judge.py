"""The policy as the judge of its own answers: a prompt's answers, compared in pairs, become rewards (SR-R1).

    answers of a group -> every pair shown to the policy -> verdicts -> ratings -> 0 to `top`, times `weight`

A reward unlike the terms of `reward.terms`, and therefore here: it asks the very weights that have just been
sampled from, while they are loaded, and the games of all groups of a step are sampled side by side. What a
policy holds of itself is no accuracy, and it learns to please itself: so it is never asked in evaluation, and
training logs how far its verdicts agree with the verifier, and how far they only follow an answer's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from score_core.config import reward
from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.models.folders import context_limit, load_configs
from score_core.problems import Problem
from score_core.rewards.judge_prompt import JudgePrompt
from score_core.rewards.tournament import RATINGS, Game, pairings, read_verdict, scaled
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines import Engine
from score_core.rollout.engines.engine import Request
from score_core.rollout.roll_out import Rollout

PARTS = ("problem", "first", "second")


class _Question(NamedTuple):
    """A game that is to be played: answers of trajectories `first` and `second` to attempt `attempt`."""

    at: int  # the problem's index
    attempt: int
    first: int
    second: int
    prompt: list[int]


def make_self_judge(
    config: Config, conversation: Conversation, base: Path, attempts: int
) -> SelfJudge | None:
    """The self-judge that the parameters ask for, if they do.

    Args:
        base: the folder of a whole model, whose context the games have to fit.
        attempts: of the longest dialogue.

    Raises:
        UserError: its prompt cannot be used, or is too long with two answers; or attempts have verdicts of
            their own between them, of which it knows nothing.
    """
    if config.reward.self_judge is None:
        return None
    if conversation.verifies:
        raise UserError(
            "reward.self_judge: compares attempts, and this method has verdicts between them; set it to null."
        )
    judge = SelfJudge(config.reward.self_judge, conversation, conversation.longest(attempts))
    limit = context_limit(load_configs(base)[0])
    if limit is not None and judge.longest > limit:
        raise UserError(
            f"reward.self_judge: a problem, two answers and a verdict can reach {judge.longest} tokens, and "
            f"the context holds {limit}; lower conversation.max_new_tokens, or that of reward.self_judge."
        )
    return judge


class SelfJudge:
    """Has a policy compare the answers of each group, and pays its ratings.

    Args:
        conversation: the dialogues whose answers are judged.
        dialogue: the most tokens that one of these can have.

    Attributes:
        longest: the most tokens of a game, problem, both answers and reply.

    Raises:
        UserError: the prompt cannot be used.
    """

    def __init__(self, settings: reward.SelfJudge, conversation: Conversation, dialogue: int) -> None:
        self._settings = settings
        self._prompt = JudgePrompt(settings.prompt, PARTS, "reward.self_judge.prompt")
        self._conversation = conversation.limited(settings.max_new_tokens)
        said, words = conversation.settings, self._ask(dict.fromkeys(PARTS, ""))
        self.longest = len(words) + said.max_prompt_tokens + 2 * said.max_new_tokens + settings.max_new_tokens
        self._dialogue = dialogue

    def rate(
        self,
        engine: Engine,
        rollout: Rollout,
        problems: Sequence[Problem],
        streams: Sequence[np.random.Generator],
        batch_size: int,
    ) -> Rollout:
        """Adds the ratings to the rewards of a rollout, and the games to the rollout.

        Args:
            engine: has the weights that the rollout was sampled from.
            problems: of the rollout, each with equally many trajectories.
            streams: where each problem's games have their noise from.
            batch_size: dialogues that may be sampled side by side; changes no result.
        """
        samples, attempts = len(rollout.texts) // len(problems), len(rollout.texts[0])
        pairs = pairings(samples, self._settings.both_orders)
        questions = [
            self._question(rollout, problems[at], at, attempt, at * samples + first, at * samples + second)
            for at, attempt, (first, second) in product(range(len(problems)), range(attempts), pairs)
        ]
        shape = (attempts * len(pairs), 1, self._settings.max_new_tokens)
        noise = np.concatenate([stream.random(shape) for stream in streams])
        # Games are longer than the dialogues that the size is meant for.
        rows = max(1, batch_size * self._dialogue // max(self._dialogue, self.longest))
        size = len(questions) if engine.schedules else rows
        games: list[list[Game]] = [[] for _ in range(attempts)]
        for start in range(0, len(questions), size):
            batch = questions[start : start + size]
            scores = self._verdicts(engine, batch, noise[start : start + size])
            for question, score in zip(batch, scores, strict=True):
                games[question.attempt].append(Game(question.first, question.second, score))
        return self._paid(rollout, games, samples)

    def _question(
        self, rollout: Rollout, problem: Problem, at: int, attempt: int, first: int, second: int
    ) -> _Question:
        texts = [rollout.texts[row][attempt] for row in (first, second)]
        values = dict(zip(PARTS, (problem.problem, *texts), strict=True))
        return _Question(at, attempt, first, second, self._ask(values))

    def _ask(self, values: dict[str, str]) -> list[int]:
        return self._conversation.question(self._prompt.filled(values, self._conversation.tokenizer))

    def _verdicts(self, engine: Engine, batch: Sequence[_Question], noise: np.ndarray) -> list[float | None]:
        """What the first answer of each game gets; None where the reply cannot be read."""
        # Text that was tokenised anew can be longer than it was sampled: such a game is not played.
        room = self.longest - self._settings.max_new_tokens
        played = [at for at, question in enumerate(batch) if len(question.prompt) <= room]
        scores: list[float | None] = [None] * len(batch)
        if not played:
            return scores
        request = Request(
            [batch[at].prompt for at in played],
            attempts=1,
            noise=noise[played],
            temperature=self._settings.temperature,
        )
        replies = [pieces[-1][0] for pieces in engine.sample(self._conversation, request).segments]
        for at, (text,) in zip(played, self._conversation.texts([[ids] for ids in replies]), strict=True):
            score = read_verdict(text)
            scores[at] = None if score == 0.5 and not self._settings.ties else score
        return scores

    def _paid(self, rollout: Rollout, games: list[list[Game]], samples: int) -> Rollout:
        verdicts = [list(row) for row in rollout.verdicts]
        for attempt, played in enumerate(games):
            for start in range(0, len(verdicts), samples):
                members = range(start, start + samples)
                group = [
                    Game(game.first - start, game.second - start, game.score)
                    for game in played
                    if game.first in members
                ]
                ratings = scaled(RATINGS[self._settings.rating](group, samples), self._settings.top)
                for row, rating in zip(members, ratings.tolist(), strict=True):
                    graded = verdicts[row][attempt]
                    earned = graded.reward + self._settings.weight * rating
                    verdicts[row][attempt] = graded._replace(reward=earned)
        return replace(rollout, verdicts=verdicts, games=games)
