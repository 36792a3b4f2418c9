"""Training a stage, from folder to folder: models, trainer, selection, outputs."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from score_core.beta2 import Beta2Controller
from score_core.config import Config
from score_core.conversation import Conversation
from score_core.errors import UserError
from score_core.files import remove, replacing, write_json
from score_core.models import (
    ADAPTER_CONFIG,
    context_limit,
    end_token_ids,
    load_model,
    load_tokenizer,
    save_model,
)
from score_core.objective import Objective, stage_one, stage_two
from score_core.problems import Problem, read_problems
from score_core.rewards import Judge
from score_core.schema import Runtime, Stage
from score_core.seeding import derive_seed
from score_core.tracking import STEP, VALIDATION, Progress, Recorder
from score_core.trainer import SCoReTrainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folders:
    """Where a stage reads and writes.

    Attributes:
        base: the base model, the reference of both stages.
        data: the prepared splits.
        output: the trained model, a transformers or an adapter folder.
        metrics: stem of the stage's metric files, e.g. `metrics/train_stage1`.
        work: scratch of the running stage, removed by nobody else.
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
    for attempts in range(2, stage.attempts + 1):
        last = attempts == stage.attempts
        phase = folders if last else _phase(folders, attempts)
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
    write_json(folders.metrics.with_suffix(".json"), {**summary, "took_off": took_off})
    if stage.attempts > 2:
        remove(folders.work / "phases")


def train_stage2(config: Config, runtime: Runtime, folders: Folders, start: Path) -> None:
    """Stage II: rewards every attempt and progress between them, from Stage I's model at `start`.

    The reference is the base model, not `start`.
    """
    stage = config.stage2
    objective = stage_two(stage.attempts, stage.beta1, stage.alpha, stage.gamma)
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
    )
    write_json(folders.metrics.with_suffix(".json"), summary)


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
) -> dict[str, Any]:
    """Trains from the model in `start` and writes the model and the curves.

    Args:
        reference: folder of pi_ref.
        name: separates the stage's random numbers from others'.

    Returns:
        The stage's summary: steps, the step whose weights were kept, last rewards, validation there.

    Raises:
        UserError: a model, a split or a setting cannot be used; before any training.
    """
    torch.set_num_threads(runtime.threads)
    set_seed(derive_seed(config.seed, name, "torch") % 2**32)
    tokenizer = load_tokenizer(folders.base)
    model = load_policy(config, start, folders.base)
    conversation = Conversation(
        config.conversation, tokenizer, end_token_ids(tokenizer, model.generation_config)
    )
    conversation.check_fits(stage.attempts, context_limit(model))
    problems = fitting(read_problems(folders.data, "train"), conversation)
    validation = fitting(read_problems(folders.data, "validation"), conversation)

    recorder = Recorder(folders.work / "log.jsonl")
    best = Best(stage, folders.work / "best")
    trainer = SCoReTrainer(
        model,
        training_arguments(stage, config, runtime, folders.work, name),
        stage=stage,
        objective=objective,
        controller=controller,
        conversation=conversation,
        judge=Judge(config.reward),
        problems=problems,
        validation=validation[: stage.validation_problems],
        reference=load_reference(config, stage, objective, reference),
        seed=config.seed,
        name=name,
        sampling_batch_size=runtime.sampling_batch_size,
        processing_class=tokenizer,
        callbacks=[recorder, Progress(name), best],
    )
    trainer.remove_callback(PrinterCallback)  # `Progress` says it in one line
    trainer.train()
    with replacing(folders.output) as temporary:
        if best.step is not None and best.step != stage.steps:
            shutil.copytree(best.folder, temporary)
        else:
            save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, temporary)
    remove(best.folder)
    recorder.publish(folders.metrics)
    return summary_of(recorder, kept=best.step or stage.steps)


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


def load_policy(config: Config, start: Path, base: Path) -> PreTrainedModel | PeftModel:
    """The model to train: whole, or the base model with the adapter of `start` or a new one."""
    if config.lora is None:
        return load_model(start, config.dtype)
    model = load_model(base, config.dtype)
    if (start / ADAPTER_CONFIG).exists():
        return PeftModel.from_pretrained(model, start, is_trainable=True)
    targets = config.lora.targets
    return get_peft_model(
        model,
        LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        ),
    )


def load_reference(
    config: Config, stage: Stage, objective: Objective, folder: Path
) -> PreTrainedModel | None:
    """A frozen pi_ref; None where nobody needs one, or the policy without its adapter is it."""
    needed = any(objective.kl_weight) or stage.offline_first_attempts > 0
    # A folder with an adapter is the model of an earlier phase, not the base model.
    if not needed or (config.lora is not None and not (folder / ADAPTER_CONFIG).exists()):
        return None
    return load_model(folder, config.dtype).requires_grad_(False)


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


def micro_batches(stage: Stage, runtime: Runtime) -> int:
    """Into how many micro-batches of whole problems a step is cut: the fewest that fit."""
    for count in range(1, stage.prompts_per_step + 1):
        size = stage.prompts_per_step // count * stage.samples_per_prompt
        if stage.prompts_per_step % count == 0 and size <= runtime.micro_batch_size:
            return count
    return stage.prompts_per_step


def training_arguments(
    stage: Stage, config: Config, runtime: Runtime, work: Path, name: str
) -> TrainingArguments:
    """The Trainer's own settings, which are the stage's in other words."""
    count = micro_batches(stage, runtime)
    decays = stage.final_learning_rate < 1
    return TrainingArguments(
        output_dir=str(work),
        run_name=f"{config.profile}-{name}",
        max_steps=stage.steps,
        per_device_train_batch_size=stage.prompts_per_step // count,
        gradient_accumulation_steps=count,
        train_sampling_strategy="sequential",
        learning_rate=stage.learning_rate,
        # The polynomial schedule refuses an end that is not below its start.
        lr_scheduler_type="polynomial" if decays else "constant_with_warmup",
        lr_scheduler_kwargs={"lr_end": stage.learning_rate * stage.final_learning_rate} if decays else {},
        warmup_steps=min(stage.warmup_steps, stage.steps - 1),
        optim="adamw_torch",
        adam_beta1=stage.adam_betas[0],
        adam_beta2=stage.adam_betas[1],
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        seed=derive_seed(config.seed, name, "trainer") % 2**32,
        eval_strategy="steps",
        eval_steps=stage.validate_every,
        eval_on_start=True,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,  # batches are a few numbers
        remove_unused_columns=False,
        report_to=[] if runtime.tracker == "none" else [runtime.tracker],
        log_level="warning",
    )


class Best(TrainerCallback):
    """Keeps the weights of the best step so far, by what `stage.select` names; nothing for `last`."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.select, self.folder = stage.select, folder
        self.step: int | None = None
        self.value = float("-inf")
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
        if value > self.value:
            self.value, self.step = value, state.global_step
            save_model(kwargs["model"], kwargs["processing_class"], self.folder)


def _phase(folders: Folders, attempts: int) -> Folders:
    work = folders.work / "phases" / str(attempts)
    return Folders(folders.base, folders.data, work / "model", work / "metrics", work)
