"""Evaluation: several attempts at every problem, judged, one row a problem."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from score_core.config import Config
from score_core.conversation import Conversation
from score_core.models import context_limit, end_token_ids, load_model, load_tokenizer
from score_core.problems import Problem
from score_core.rewards import Judge
from score_core.rollout import Rollout, roll_out
from score_core.schema import Evaluation, Runtime
from score_core.seeding import stream

log = logging.getLogger(__name__)


def evaluate(folder: Path, problems: Sequence[Problem], config: Config, runtime: Runtime) -> pd.DataFrame:
    """Evaluates the model in a folder.

    Args:
        folder: a transformers model folder, or an adapter's.
        problems: what to answer; an empty gold answer is never matched.

    Returns:
        One row a problem: `id`, `problem`, `answer`, and for each attempt t `text_t`, `extracted_t`
        (null where unparsable), `correct_t`, `reward_t`, `tokens_t`, `truncated_t`.

    Raises:
        UserError: the folder is no usable model, or a problem does not fit its context.
    """
    tokenizer = load_tokenizer(folder)
    torch.set_num_threads(runtime.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(folder, config.dtype, device)
    conversation = Conversation(
        config.conversation, tokenizer, end_token_ids(tokenizer, model.generation_config)
    )
    conversation.check_fits(config.evaluation.attempts, context_limit(model))
    judge = Judge(config.reward)
    with tqdm(total=len(problems), desc=f"evaluate {folder}", unit="problem", mininterval=1) as bar:
        return attempt_all(
            model, conversation, judge, problems, config.evaluation, config.seed, progress=bar.update
        )


def attempt_all(
    model: PreTrainedModel,
    conversation: Conversation,
    judge: Judge,
    problems: Sequence[Problem],
    settings: Evaluation,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> pd.DataFrame:
    """Answers every problem once in `settings.attempts` attempts; the table of `evaluate`."""

    def noise(at: int) -> np.ndarray:
        shape = (1, settings.attempts, conversation.settings.max_new_tokens)
        return stream(seed, "evaluation", problems[at].id).random(shape)

    rollout = roll_out(
        model,
        conversation,
        judge,
        problems,
        settings.attempts,
        batch_size=settings.batch_size,
        noise=noise if settings.temperature > 0 else None,
        temperature=settings.temperature,
        top_p=settings.top_p,
        progress=progress,
    )
    return as_table(rollout, problems)


def as_table(rollout: Rollout, problems: Sequence[Problem]) -> pd.DataFrame:
    """One row a problem; the rollout must hold one trajectory each."""
    columns: dict[str, list[object]] = {
        name: [getattr(problem, name) for problem in problems] for name in ("id", "problem", "answer")
    }
    lengths = rollout.trajectories.lengths_NT.tolist()
    truncated = rollout.trajectories.truncated_NT.tolist()
    for turn in range(len(lengths[0])):
        suffix = f"_t{turn + 1}"
        columns[f"text{suffix}"] = [row[turn] for row in rollout.texts]
        columns[f"extracted{suffix}"] = [row[turn].extracted for row in rollout.verdicts]
        columns[f"correct{suffix}"] = [row[turn].correct for row in rollout.verdicts]
        columns[f"reward{suffix}"] = [row[turn].reward for row in rollout.verdicts]
        columns[f"tokens{suffix}"] = [row[turn] for row in lengths]
        columns[f"truncated{suffix}"] = [row[turn] for row in truncated]
    return pd.DataFrame(columns)
