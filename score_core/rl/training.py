"""Training a stage, from folder to folder: models, trainer, selection, outputs."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from score_core.checkpointing.checkpoints import Checkpoints, prune_runs
from score_core.checkpointing.fingerprint import fingerprint
from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from score_core.config.schema import Stage
from score_core.distributed import confirm, everyones, rank
from score_core.errors import UserError
from score_core.files import remove, write_json
from score_core.models.folders import context_limit, end_token_ids, load_tokenizer
from score_core.problems import Problem, read_problems
from score_core.rewards.grader import Grader
from score_core.rl.beta2 import Beta2Controller
from score_core.rl.objective import Objective, stage_one, stage_two
from score_core.rl.policy import load_policy, load_reference
from score_core.rl.recorder import STEP, VALIDATION, Progress, Recorder
from score_core.rl.trainer import SCoReTrainer
from score_core.rl.training_arguments import training_arguments
from score_core.rollout.conversation import Conversation
from score_core.seeding import derive_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folders:
    """Where a stage reads and writes.

    Attributes:
        base: the base model, the reference of both stages.
        data: the prepared splits.
        output: the trained model, a transformers or an adapter folder.
        metrics: stem of the stage's metric files, e.g. `metrics/train_stage1`.
        work: scratch of the running stage: its log, and its runs' checkpoints by fingerprint.
    """

    base: Path
    data: Path
    output: Path
    metrics: Path
    work: Path


def train_stage1(config: Config, runtime: Runtime, folders: Folders) -> None:
    """Stage I: teaches the last attempt, holding the others to where they were.

    With T > 2 attempts this takes T - 1 phases of `stage1.steps` each: phase t rewards attempt t + 1 and
    holds attempts 1 to t to the model of the phase before (the base model, in the first).

    Raises:
        UserError: see `train`.
    """
    stage = config.stage1
    start = folders.base
    run = run_folder(config, runtime, folders, "stage1", start)
    for attempts in range(2, stage.attempts + 1):
        last = attempts == stage.attempts
        phase = folders if last else _phase(folders, run / f"phase{attempts}")
        objective = stage_one(attempts, stage.beta1, stage.beta2)
        adaptive = stage.adaptive_beta2
        controller = (
            Beta2Controller(objective, adaptive.target_kl, adaptive.horizon) if adaptive is not None else None
        )
        name = "stage1" if stage.attempts == 2 else f"stage1/{attempts}"
        summary = train(
            config,
            runtime,
            phase,
            stage=stage.model_copy(update={"attempts": attempts}),
            objective=objective,
            controller=controller,
            start=start,
            reference=start,
            name=name,
            checkpoints=Checkpoints(run if last else phase.work, runtime.checkpoints),
        )
        start = phase.output
    took_off = summary["validation_delta"] >= stage.takeoff_delta
    if not took_off:
        log.warning(
            "Stage I has not taken off: the validation delta is %+.1f points, below stage1.takeoff_delta = "
            "%.1f. Stage II will hardly find corrections to reward. Give stage1.steps more, or a base model "
            "that at least sometimes corrects when sampled.",
            100 * summary["validation_delta"],
            100 * stage.takeoff_delta,
        )
    if rank() == 0:
        write_json(folders.metrics.with_suffix(".json"), {**summary, "took_off": took_off})
        remove(run)


def train_stage2(config: Config, runtime: Runtime, folders: Folders, start: Path) -> None:
    """Stage II: rewards every attempt and progress between them, from Stage I's model at `start`.

    The reference is the base model, not `start`.
    """
    stage = config.stage2
    objective = stage_two(stage.attempts, stage.beta1, stage.alpha, stage.gamma)
    run = run_folder(config, runtime, folders, "stage2", start)
    summary = train(
        config,
        runtime,
        folders,
        stage=stage,
        objective=objective,
        controller=None,
        start=start,
        reference=folders.base,
        name="stage2",
        checkpoints=Checkpoints(run, runtime.checkpoints),
    )
    if rank() == 0:
        write_json(folders.metrics.with_suffix(".json"), summary)
        remove(run)


def run_folder(config: Config, runtime: Runtime, folders: Folders, section: str, start: Path) -> Path:
    """Where this very run of a stage keeps its checkpoints; those of too many, or old, others are removed."""
    name = fingerprint(config, runtime, section, [folders.base, folders.data, start])
    if os.environ.get("RANK", "0") == "0":
        prune_runs(folders.work, name, runtime.checkpoints)
    return folders.work / name


def train(
    config: Config,
    runtime: Runtime,
    folders: Folders,
    *,
    stage: Stage,
    objective: Objective,
    controller: Beta2Controller | None,
    start: Path,
    reference: Path,
    name: str,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """Trains from the model in `start`, or from the newest checkpoint, and writes model and curves.

    Every process of the stage calls it; the first one writes.

    Args:
        reference: folder of pi_ref.
        name: separates the stage's random numbers from others'.

    Returns:
        The stage's summary: steps, the step whose weights were kept, last rewards, validation there.

    Raises:
        UserError: a model, a split, a setting or the disk cannot be used; before any training. Or the disk
            is full later.
        Stopped: by SIGINT or SIGTERM, in training, and saved.
    """
    torch.set_num_threads(runtime.threads)
    set_seed(derive_seed(config.seed, name, "torch") % 2**32)
    # Before any model is loaded: under ZeRO-3 weights are split as they are read.
    arguments = training_arguments(stage, config, runtime, folders.work, name)
    tokenizer = load_tokenizer(folders.base)
    model = load_policy(config, start, folders.base, arguments.device)
    conversation = Conversation(
        config.conversation, tokenizer, end_token_ids(tokenizer, model.generation_config)
    )
    conversation.check_fits(stage.attempts, context_limit(model))
    problems = fitting(read_problems(folders.data, "train"), conversation)
    validation = fitting(read_problems(folders.data, "validation"), conversation)

    recorder = Recorder(folders.work / "log.jsonl")
    trainer = SCoReTrainer(
        model,
        arguments,
        stage=stage,
        objective=objective,
        controller=controller,
        conversation=conversation,
        grader=Grader(config.reward),
        problems=problems,
        validation=validation[: stage.validation_problems],
        reference=load_reference(config, stage, objective, reference, arguments.device),
        seed=config.seed,
        name=name,
        sampling_batch_size=runtime.sampling_batch_size,
        processing_class=tokenizer,
        callbacks=[recorder, Progress(name), Best(stage)],
        checkpoints=checkpoints,
    )
    confirm(trainer.accelerator.state, runtime.launch)
    trainer.remove_callback(PrinterCallback)  # `Progress` says it in one line
    disable_progress_bar()  # transformers': every checkpoint would draw some into training's own
    trainer.train_on()
    kept = trainer.state.best_global_step or stage.steps
    if kept != stage.steps:
        trainer.load_step(kept)
    trainer.save_weights(folders.output)
    summary: dict[str, Any] = {}
    if rank() == 0:
        recorder.publish(folders.metrics)
        summary = summary_of(recorder, kept)
    return everyones(summary)[0]


def summary_of(recorder: Recorder, kept: int) -> dict[str, Any]:
    """The last training rewards and the validation at the step whose weights were kept."""
    last = recorder.rows(STEP).iloc[-1]
    validation = recorder.rows(VALIDATION).set_index("step")
    chosen = validation.loc[validation.index[validation.index <= kept][-1]]
    return {
        "steps": int(last["step"]),
        "selected_step": kept,
        **{key: float(value) for key, value in last.items() if str(key).startswith("reward_t")},
        **{f"validation_{key}": float(value) for key, value in chosen.items() if str(key) != "changed"},
    }


def fitting(problems: list[Problem], conversation: Conversation) -> list[Problem]:
    """The problems whose prompt is short enough; the others are left out, and counted aloud.

    Raises:
        UserError: none is left.
    """
    kept = []
    for problem in problems:
        try:
            conversation.prompt(problem)
            kept.append(problem)
        except UserError as error:
            log.debug("left out: %s", error)
    if len(kept) < len(problems):
        log.warning(
            "%d of %d problems are longer than conversation.max_prompt_tokens and left out",
            len(problems) - len(kept),
            len(problems),
        )
    if not kept:
        raise UserError(
            "conversation.max_prompt_tokens: no problem fits "
            f"{conversation.settings.max_prompt_tokens} tokens; raise it."
        )
    return kept


class Best(TrainerCallback):
    """Saves the best step so far, by what `stage.select` names, and notes it; nothing for `last`.

    The note is the Trainer's own, so checkpoints hold it, and what it names is kept (see `checkpoints.py`).
    """

    def __init__(self, stage: Stage) -> None:
        self.select = stage.select
        self.reward = float("-inf")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Looks at each validation; weights are only ever kept there."""
        logs = logs or {}
        if "loss" in logs:
            self.reward = sum(value for key, value in logs.items() if key.startswith("reward_t"))
        if self.select == "last" or "eval_delta" not in logs or state.global_step == 0:
            return
        last = max(key for key in logs if key.startswith("eval_accuracy_t"))
        value = logs[last] if self.select == "validation_accuracy" else self.reward
        if state.best_metric is None or value > state.best_metric:
            state.best_metric, state.best_global_step = value, state.global_step
            control.should_save = True


def _phase(folders: Folders, work: Path) -> Folders:
    return replace(folders, output=work / "model", metrics=work / "metrics", work=work)
