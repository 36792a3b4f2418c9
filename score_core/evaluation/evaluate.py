"""Evaluation: several attempts at every problem, judged, one row a problem."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from score_core.config.runtime import Runtime
from score_core.config.schema import Config, Evaluation
from score_core.distributed import check_strategy, init_processes, rank, world
from score_core.errors import NotFinite, UserError
from score_core.models.folders import load_model
from score_core.models.kernels import use_kernels
from score_core.problems import Problem
from score_core.rewards.grader import Graded, Grader
from score_core.rollout.conversation import Conversation, load_conversation
from score_core.rollout.engines import Engine, engine_name, make_engine
from score_core.rollout.roll_out import Rollout, roll_out
from score_core.seeding import stream


class Evaluator:
    """A model, loaded from a folder, and all that it takes to have it answer problems.

    Args:
        folder: a transformers model folder, or an adapter's.
        base: the model folder under an adapter; by default the one that the adapter names.

    Raises:
        UserError: the folder is no usable model, or has too short a context for all attempts.
    """

    def __init__(self, folder: Path, config: Config, runtime: Runtime, base: Path | None = None) -> None:
        self.folder, self.config, self.runtime, self.base = folder, config, runtime, base
        # These two refuse unknown names, so they come before anything is loaded.
        self.grader = Grader(config.reward)
        self.engine_name = engine_name(runtime, config.evaluation.sampling, "evaluation")
        self._engine = make_engine(self.engine_name, runtime, config.dtype, None)
        asked = config.evaluation
        self.conversation = load_conversation(
            folder, config.evaluated_conversation, asked.attempts, base, asked.verifies
        )
        self.state = init_processes()
        check_strategy(self.state, runtime.launch)
        torch.set_num_threads(runtime.threads)

    @cached_property
    def engine(self) -> Engine:
        """Has the model's weights, which are loaded when there is something to answer."""
        model = load_model(self.folder, self.config.dtype, self.state.device, self.base, self.config.quantize)
        self._engine.load(use_kernels(model, self.runtime))
        return self._engine

    def evaluate(
        self, problems: Sequence[Problem], show_progress: bool = True, given: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Has the model answer, and judges.

        Args:
            problems: what to answer; without references nothing is right.
            show_progress: as a bar on standard error.
            given: for each problem its first attempt, which the model is to correct.

        Returns:
            One row a dialogue, those of a problem next to each other: `id`, `problem`, `answer`, `sample`
            (from 1) where there are several a problem, `by_NAME` for each label of a problem, and for each
            attempt t `text_t`, `extracted_t` (null where unparsable), `correct_t`, `reward_t`, `tokens_t`,
            `truncated_t`; with `v1` in place of `t1` the same of a verdict on it. An attempt that did not
            take place after a verdict has no tokens, and all else of the one before it.

        Raises:
            UserError: a problem is longer than the configuration allows, or the weights cannot be loaded, or
                are broken.
        """
        self.conversation.check_prompts(problems)
        engine = self.engine  # before the bar is drawn
        with (
            self._naming_the_model(),
            tqdm(
                total=len(problems),
                desc=f"evaluate {self.folder}",
                unit="problem",
                mininterval=1,
                disable=not (show_progress and self.state.is_main_process),
            ) as bar,
        ):
            return attempt_all(
                engine,
                self.conversation,
                self.grader,
                problems,
                self.config.evaluation,
                self.config.seed,
                given=None if given is None else [self.conversation.attempt(text) for text in given],
                progress=lambda done: bar.update(min(done * world(), len(problems) - bar.n)),
            )

    @contextmanager
    def _naming_the_model(self) -> Iterator[None]:
        try:
            yield
        except NotFinite as error:
            raise UserError(
                f"{self.folder}: {error} (NaN or infinite); expected numbers, so its weights are damaged or "
                "overflow; train it again with a lower learning rate, or copy it again."
            ) from error


def attempt_all(
    engine: Engine,
    conversation: Conversation,
    grader: Grader,
    problems: Sequence[Problem],
    settings: Evaluation,
    seed: int,
    progress: Callable[[int], object] | None = None,
    given: Sequence[list[int]] | None = None,
) -> pd.DataFrame:
    """Answers every problem in `settings.attempts` attempts, `settings.samples` times: `Evaluator.evaluate`.

    Processes take turns in whole batches, so a problem has the same neighbours, and hence the same
    rounding, however many processes there are. All of them get the whole table.

    Args:
        progress: called with the number of this process's problems done since the last call.
        given: for each problem its first attempt as token ids, which is not sampled then.
    """

    samples = settings.samples
    size = max(1, settings.batch_size // samples)

    def answer(start: int) -> dict[str, list[object]]:
        batch = problems[start : start + size]
        firsts = given[start : start + size] if given is not None else ()

        def noise(at: int) -> np.ndarray:
            turns = conversation.turns(settings.attempts)
            shape = (samples, turns, conversation.settings.max_new_tokens)
            return stream(seed, "evaluation", batch[at].id).random(shape)

        rollout = roll_out(
            engine,
            conversation,
            grader,
            batch,
            settings.attempts,
            batch_size=settings.batch_size,
            samples=samples,
            noise=noise if settings.temperature > 0 else None,
            temperature=settings.temperature,
            top_p=settings.top_p,
            given={at: [ids] * samples for at, ids in enumerate(firsts)},
            progress=progress,
        )
        return columns_of(rollout, batch)

    batches = range(0, len(problems), size)
    done = gather_object([[answer(start) for start in batches[rank() :: world()]]])
    tables = [done[number % world()][number // world()] for number in range(len(batches))]
    return pd.DataFrame({name: [cell for table in tables for cell in table[name]] for name in tables[0]})


def columns_of(rollout: Rollout, problems: Sequence[Problem]) -> dict[str, list[object]]:
    """The table's columns for these problems; the rollout must hold equally many trajectories of each."""
    samples = len(rollout.texts) // len(problems)
    asked = [problem for problem in problems for _ in range(samples)]
    columns: dict[str, list[object]] = {
        name: [getattr(problem, name) for problem in asked] for name in ("id", "problem", "answer")
    }
    if samples > 1:
        columns["sample"] = [*range(1, samples + 1)] * len(problems)
    for at, (name, _) in enumerate(problems[0].labels):
        columns[f"by_{name}"] = [problem.labels[at][1] for problem in asked]
    lengths = rollout.trajectories.lengths_NT.tolist()
    truncated = rollout.trajectories.truncated_NT.tolist()
    for at, label in enumerate(rollout.labels):
        columns[f"text_{label}"] = [row[at] for row in rollout.texts]
        for field in Graded._fields:
            columns[f"{field}_{label}"] = [getattr(row[at], field) for row in rollout.verdicts]
        columns[f"tokens_{label}"] = [row[at] for row in lengths]
        columns[f"truncated_{label}"] = [row[at] for row in truncated]
    return columns


def asked_in(generations: pd.DataFrame, problems: Sequence[Problem]) -> list[Problem]:
    """The problem of each row of a table of generations, which holds equally many dialogues of each."""
    return [problem for problem in problems for _ in range(len(generations) // len(problems))]
