"""What a run of training samples from, and the samples of a step: K judged trajectories for each problem.

Randomness depends on a problem's position in the run alone: not on how positions are batched or spread
over processes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rl.algorithm import Algorithm
from score_core.rl.batches import PromptSchedule
from score_core.rl.stopwatch import Stopwatch
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines import Engine
from score_core.rollout.roll_out import GRADING, Rollout, roll_out
from score_core.rollout.self_judge import SelfJudge
from score_core.seeding import stream

OpenModel = Callable[[], AbstractContextManager[PreTrainedModel]]


@dataclass(frozen=True)
class Stage:
    """One run of training.

    Attributes:
        name: separates its random numbers from others'.
        seed: what they are derived from.
        algorithm: the method, with the stage's settings.
        conversation: what is said in a dialogue.
        grader: judges attempts.
        problems: what is trained on.
        validation: what is answered greedily now and then.
        engine: samples.
        engine_name: its key in `ENGINES`.
        tolerated_gap: nats a token that the engine's and the trainer's log-probabilities may differ by.
        sampling_batch_size: trajectories sampled side by side; changes no result.
        self_judge: rates the policy's answers by the policy's own verdicts; None: nobody does.
    """

    name: str
    seed: int
    algorithm: Algorithm
    conversation: Conversation
    grader: Grader
    problems: Sequence[Problem]
    validation: Sequence[Problem]
    engine: Engine
    engine_name: str
    tolerated_gap: float
    sampling_batch_size: int
    self_judge: SelfJudge | None = None

    @property
    def parts(self) -> Sequence[range]:
        """Indices of the problems that the algorithm wants, part after part."""
        return self.algorithm.parts(len(self.problems))

    @property
    def settings(self) -> Any:
        """The algorithm's settings."""
        return self.algorithm.settings


class StepSampler:
    """Draws the trajectories of the positions of `schedule`."""

    def __init__(self, stage: Stage, schedule: PromptSchedule, stopwatch: Stopwatch) -> None:
        self.stage, self.schedule, self.stopwatch = stage, schedule, stopwatch

    def draw(
        self, positions: Sequence[int], policy: OpenModel, reference: OpenModel
    ) -> tuple[Rollout, Tensor]:
        """Samples and judges.

        Args:
            policy: opens the trained model with all its weights.
            reference: the same for pi_ref, which gives some first attempts where the settings say so.

        Returns:
            The trajectories, and (N,) whether their first attempt was given.
        """
        stage, settings = self.stage, self.stage.settings
        problems = [stage.problems[self.schedule.order[position]] for position in positions]
        share = settings.offline_first_attempts
        offline = [self._stream("offline", position).random() < share for position in positions]
        given = self._first_attempts(positions, problems, offline, reference) if share > 0 else {}
        with policy() as model:
            stage.engine.load(model)
            rollout = self._roll_out(positions, problems, stage.algorithm.attempts, "noise", given)
            if stage.self_judge is not None:
                with self.stopwatch.part(GRADING):
                    streams = [self._stream("games", position) for position in positions]
                    rollout = stage.self_judge.rate(
                        stage.engine, rollout, problems, streams, stage.sampling_batch_size
                    )
        given_N = torch.tensor(offline, device=rollout.trajectories.input_ids_NL.device)
        return rollout, given_N.repeat_interleave(settings.samples_per_prompt)

    def _first_attempts(
        self, positions: Sequence[int], problems: list[Problem], wanted: list[bool], reference: OpenModel
    ) -> dict[int, list[list[int]]]:
        """First attempts of the reference, K for each wanted problem, by its index."""
        chosen = [at for at, want in enumerate(wanted) if want]
        samples = self.stage.settings.samples_per_prompt
        # Every process opens the model, also one that wants nothing: its weights may be split.
        with reference() as model:
            self.stage.engine.load(model)
            if not chosen:
                return {}
            rollout = self._roll_out(
                [positions[at] for at in chosen], [problems[at] for at in chosen], 1, "offline noise"
            )
        firsts = [row[0] for row in rollout.trajectories.attempts]
        return {at: firsts[n * samples : (n + 1) * samples] for n, at in enumerate(chosen)}

    def _roll_out(
        self,
        positions: Sequence[int],
        problems: Sequence[Problem],
        attempts: int,
        use: str,
        given: dict[int, list[list[int]]] | None = None,
    ) -> Rollout:
        stage, settings = self.stage, self.stage.settings
        said = stage.conversation
        shape = (settings.samples_per_prompt, said.turns(attempts), said.settings.max_new_tokens)

        def noise(at: int) -> np.ndarray:
            return self._stream(use, positions[at]).random(shape)

        return roll_out(
            stage.engine,
            stage.conversation,
            stage.grader,
            problems,
            attempts,
            batch_size=stage.sampling_batch_size,
            samples=settings.samples_per_prompt,
            noise=noise,
            temperature=settings.temperature,
            given=given,
            part=self.stopwatch.part,
        )

    def _stream(self, use: str, position: int) -> np.random.Generator:
        return stream(self.stage.seed, self.stage.name, use, position)
