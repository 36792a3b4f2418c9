"""Training a stage, from folder to folder: models, trainer, selection, outputs."""

import logging
import os
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from score_core.checkpointing.checkpoints import Checkpoints, prune_runs
from score_core.checkpointing.fingerprint import fingerprint
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.distributed import check_strategy, launched, rank
from score_core.files import write_json
from score_core.models.folders import base_of
from score_core.models.kernels import use_kernels
from score_core.models.weights import changed_share
from score_core.problems import read_problems
from score_core.rewards.grader import Grader
from score_core.rl.algorithm import Algorithm
from score_core.rl.arguments import batch_sizes, micro_batches, training_arguments
from score_core.rl.collapse import CollapseMonitor
from score_core.rl.policy import load_policy, load_reference, stands_apart
from score_core.rl.recorder import STEP, VALIDATION, Progress, Recorder
from score_core.rl.sampler import Stage
from score_core.rl.stopwatch import Stopwatch
from score_core.rl.trainer import PolicyTrainer
from score_core.rollout.conversation import Conversation, load_conversation
from score_core.rollout.engines import TOLERATED, engine_name, make_engine, sampled_by
from score_core.rollout.self_judge import make_self_judge
from score_core.seeding import derive_seed

log = logging.getLogger(__name__)
MOVING = 0.5  # the share of weights below which training has hardly trained


@dataclass(frozen=True)
class Folders:
    """Where a stage reads and writes.

    Attributes:
        start: the model to train from, a transformers or an adapter folder.
        reference: pi_ref; adapters sit on it.
        data: the prepared splits.
        output: the trained model, a transformers or an adapter folder.
        metrics: stem of the stage's metric files, e.g. `metrics/train_stage1`; their names begin with the
            whole of it, dots included.
        work: scratch of the running stage: its log, and its runs' checkpoints by fingerprint.
    """

    start: Path
    reference: Path
    data: Path
    output: Path
    metrics: Path
    work: Path


def train(
    config: Config,
    runtime: Runtime,
    folders: Folders,
    name: str,
    algorithm: Algorithm,
    code: Sequence[Path],
) -> Path:
    """Trains a stage as `algorithm` says and writes the model, its curves and a summary.

    An algorithm of several phases (Stage I with more than two attempts, iterations of fine-tuning) trains one
    after another, each from the model of the phase before. The curves are those of the last.

    Every process of the stage calls it; the first one writes.

    Args:
        name: of the stage; separates its random numbers from others'.
        code: files and folders of the code that computes: a change in them starts afresh.

    Returns:
        The folder with the last checkpoint, from which an equal call writes the outputs again without
        training, until the caller knows them to be safe and removes it.

    Raises:
        UserError: a model, a split, a setting or the disk cannot be used; before any training. Or the disk
            is full later.
        Stopped: by SIGINT or SIGTERM, in training, and saved.
    """
    inputs = [folders.reference, folders.data, folders.start, *config.reward.read.values()]
    conversation = load_conversation(
        base_of(folders.reference),
        config.conversation,
        algorithm.longest,
        verifies=algorithm.settings.verifies,
    )
    run = folders.work / fingerprint(config, runtime, name, inputs, code, conversation.dialogue)
    if os.environ.get("RANK", "0") == "0":
        prune_runs(folders.work, run.name, runtime.checkpoints)
    phases, summary, there = algorithm.phases(), {}, folders
    warned: list[dict[str, Any]] = []
    for number, phase in enumerate(phases, start=1):
        last = number == len(phases)
        work = run / f"phase{number}"
        target = replace(there, output=work / "model", metrics=work / "metrics", work=work)
        if last:
            target = replace(there, output=folders.output, metrics=folders.metrics, work=folders.work)
        checkpoints = Checkpoints(run if last else work, runtime.checkpoints)
        title = name if len(phases) == 1 else f"{name}/{number}"
        summary = train_phase(config, runtime, target, conversation, title, phase, checkpoints)
        warned += [{"phase": number, **one} for one in summary.pop("warnings")]
        reference = target.output if phase.moves_reference else folders.reference
        there = replace(there, start=target.output, reference=reference)
        # Trainer and callbacks are a cycle, which would hold models and optimiser beside the next phase's.
        clear_device_cache(garbage_collection=True)
    added = algorithm.assess(summary)
    if rank() == 0:
        # The key is there where something was told, as `took_off` is only where it was looked at.
        told = {"warnings": warned} if warned else {}
        write_json(Path(f"{folders.metrics}.json"), {**summary, **added, **told})
        checkpoints.finish()
    return run


def train_phase(
    config: Config,
    runtime: Runtime,
    folders: Folders,
    conversation: Conversation,
    name: str,
    algorithm: Algorithm,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """Trains from the model in `folders.start`, or from the newest checkpoint; writes model and curves.

    Returns:
        The summary: steps, the step whose weights were kept, last rewards, validation there, the share of
        weights that are others than at the start, what sampled, and warnings of collapse.
    """
    settings, grader = algorithm.settings, Grader(config.reward, training=True)
    samples_with = engine_name(runtime, settings.sampling, "training")
    engine = make_engine(samples_with, runtime, config.dtype, settings.max_gap)
    torch.set_num_threads(runtime.threads)
    set_seed(derive_seed(config.seed, name, "torch") % 2**32)
    base, longest = base_of(folders.reference), conversation.longest(algorithm.longest)
    needs_reference = any(algorithm.kl_weight) or settings.offline_first_attempts > 0
    # Of whole models one is counted in any case; an adapter's has its whole base under it.
    second = config.lora is not None and needs_reference and stands_apart(config, folders.reference)
    sizes = batch_sizes(config, runtime, base, longest, starts=algorithm.samples_start + second)
    count = micro_batches(settings, sizes.tokens, longest, launched(), algorithm.dialogues)
    # Before any model is loaded: under ZeRO-3 weights are split as they are read.
    arguments = training_arguments(config, runtime, settings, folders.work, name, count)
    problems = read_problems(folders.data, "train")
    validation = read_problems(folders.data, "validation")[: settings.validation_problems]
    conversation.check_prompts([*problems, *validation])
    model = use_kernels(load_policy(config, folders.start, base, arguments.device), runtime)
    trajectories = settings.prompts_per_step * settings.samples_per_prompt
    stage = Stage(
        name=name,
        seed=config.seed,
        algorithm=algorithm,
        conversation=conversation,
        grader=grader,
        problems=problems,
        validation=validation,
        engine=engine,
        engine_name=samples_with,
        tolerated_gap=settings.max_gap or TOLERATED[config.dtype],
        sampling_batch_size=trajectories if engine.schedules else sizes.rows,
        self_judge=make_self_judge(config, conversation, base, algorithm.longest),
    )
    recorder, stopwatch = Recorder(folders.work / "log.jsonl"), Stopwatch()
    monitor = CollapseMonitor(name, algorithm.samples_start)
    progress = Progress(name, monitor, trajectories, stopwatch, folders.work / "timing.jsonl")

    def frozen(folder: Path) -> PreTrainedModel | None:
        found = load_reference(config, folder, arguments.device)
        return None if found is None else use_kernels(found, runtime)

    trainer = PolicyTrainer(
        model,
        arguments,
        stage=stage,
        reference=frozen(folders.reference) if needs_reference else None,
        start=frozen(folders.start) if algorithm.samples_start else None,
        stopwatch=stopwatch,
        processing_class=conversation.tokenizer,
        callbacks=[recorder, monitor, progress, Best(settings.select, algorithm.turns)],
        checkpoints=checkpoints,
    )
    check_strategy(trainer.accelerator.state, runtime.launch)
    trainer.remove_callback(PrinterCallback)  # `Progress` says it in one line
    disable_progress_bar()  # transformers': every checkpoint would draw some into training's own
    with logging_redirect_tqdm(), closing(progress):
        trainer.train_from_newest()
    kept = trainer.state.best_global_step or settings.steps
    if kept != settings.steps:
        trainer.load_step(kept)
    trainer.save_weights(folders.output)
    summary: dict[str, Any] = {}
    if rank() == 0:
        recorder.publish(folders.metrics)
        changed = changed_share(folders.start, folders.output)
        summary = {
            **summary_of(recorder, kept),
            "weights_changed": changed,
            **sampled_by(samples_with),
            "warnings": monitor.warnings,
        }
        if changed < MOVING:
            log.warning(
                "%s: only %.2g %% of the weights changed; the learning rate (%g) is below what their "
                "precision can hold, or next to nothing was rewarded",
                name,
                100 * changed,
                settings.learning_rate,
            )
    return dict(gather_object([summary])[0])


def summary_of(recorder: Recorder, kept: int) -> dict[str, Any]:
    """The last training rewards, the validation at the step whose weights were kept, and, of a policy that
    judges itself, the means of its verdicts' figures over all steps.
    """
    steps = recorder.rows(STEP)
    last = steps.iloc[-1]
    validation = recorder.rows(VALIDATION).set_index("step")
    chosen = validation.loc[validation.index[validation.index <= kept][-1]]
    return {
        "steps": int(last["step"]),
        "selected_step": kept,
        **{key: float(value) for key, value in last.items() if str(key).startswith("reward_t")},
        **{key: float(steps[key].mean()) for key in steps if str(key).startswith("judge_")},
        **{f"validation_{key}": float(value) for key, value in chosen.items() if str(key) != "changed"},
    }


class Best(TrainerCallback):
    """Saves the best step so far, by what `select` names, and notes it; nothing for `last`.

    The note is the Trainer's own, so checkpoints hold it, and what it names is kept (see `checkpoints.py`).

    Args:
        select: as in the settings.
        attempt: the last that is trained, whose accuracy counts.
    """

    def __init__(self, select: str, attempt: int) -> None:
        self.select, self.last = select, f"eval_accuracy_t{attempt}"

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        """Looks at each validation; weights are only ever kept there."""
        if self.select == "last" or "eval_delta" not in (logs or {}) or state.global_step == 0:
            return
        value = logs[self.last] if self.select == "validation_accuracy" else recent_reward(state)
        if state.best_metric is None or value > state.best_metric:
            state.best_metric, state.best_global_step = value, state.global_step
            control.should_save = True


def recent_reward(state: TrainerState) -> float:
    """The sampled attempts' mean reward, summed over attempts, in the steps since the validation before.

    A single step's is mostly chance. The history is what checkpoints hold, so a resumed run agrees.
    """
    validations = [at for at, entry in enumerate(state.log_history) if "eval_delta" in entry]
    since = state.log_history[validations[-2] + 1 : validations[-1]]
    steps = [
        sum(value for key, value in entry.items() if key.startswith("reward_t"))
        for entry in since
        if "loss" in entry
    ]
    return statistics.fmean(steps)
