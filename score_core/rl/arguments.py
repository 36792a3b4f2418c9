"""A stage's settings in the words of `transformers.TrainingArguments`."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from score_core.config.reward import JudgeTerm
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.config.training import Training
from score_core.distributed import trainer_settings
from score_core.models.folders import load_configs
from score_core.models.memory import DTYPES, BatchSizes, Shape, fit_batches, weight_bytes
from score_core.models.weights import count_parameters
from score_core.rewards.gold_judge import judge_folder
from score_core.rl.logprobs import CHUNK
from score_core.seeding import derive_seed


def batch_sizes(config: Config, runtime: Runtime, base: Path, longest: int, *, starts: int = 0) -> BatchSizes:
    """What `runtime` asks for, and where that is `auto`, what fits.

    Args:
        base: the folder of a whole model.
        longest: tokens of a dialogue of full length.
        starts: further frozen models of the same shape.

    Raises:
        UserError: nothing fits.
    """
    tokens, rows = runtime.micro_batch_tokens, runtime.sampling_batch_size
    if "auto" in (tokens, rows):
        shape = Shape.of(base, load_configs(base)[0], config.dtype)
        # GPUs of a run are taken to be of one kind: all processes have to come to the same sizes.
        room = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
        if room is not None and runtime.launch.sampler_beside:
            room = round(room * (1 - runtime.vllm.memory))
        held, sampling = weight_bytes(shape, config.lora, config.quantize is not None, runtime.launch, starts)
        judges = [term.judge for term in config.reward.terms if isinstance(term, JudgeTerm)]
        held += sum(count_parameters(judge_folder(judge)) * DTYPES[judge.dtype] for judge in judges)
        recomputed = runtime.launch.gradient_checkpointing
        fitting = fit_batches(shape, (held, sampling), longest, room, CHUNK, recomputed)
        tokens = fitting.tokens if tokens == "auto" else tokens
        rows = fitting.rows if rows == "auto" else rows
    return BatchSizes(int(tokens), int(rows))


def micro_batches(
    settings: Training, tokens: int, longest: int, processes: int = 1, dialogues: int = 1
) -> int:
    """Into how many micro-batches a process splits its share of a step: the fewest that are sure to fit.

    Args:
        tokens: of a micro-batch at most, padding included.
        longest: of a dialogue.
        dialogues: trained on for each trajectory.
    """
    rows = settings.prompts_per_step * settings.samples_per_prompt * dialogues // processes
    return -(-rows // max(1, min(rows, tokens // longest)))


def training_arguments(
    config: Config, runtime: Runtime, settings: Training, work: Path, name: str, count: int
) -> TrainingArguments:
    """The Trainer's own settings, which are the stage's in other words.

    Args:
        count: micro-batches that a process splits its share of a step into.
    """
    return TrainingArguments(
        output_dir=str(work),
        run_name=f"{config.profile}-{name}",
        max_steps=settings.steps,
        per_device_train_batch_size=1,  # of what only counts micro-batches: see `PolicyTrainer`
        gradient_accumulation_steps=count,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        optim="adamw_torch_fused",  # also for the same bits: MKL's square root differs among processors
        adam_beta1=settings.adam_betas[0],
        adam_beta2=settings.adam_betas[1],
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=derive_seed(config.seed, name, "trainer") % 2**32,
        eval_strategy="steps",
        eval_steps=settings.validate_every,
        eval_on_start=True,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,  # batches are a few numbers
        remove_unused_columns=False,
        report_to=[] if runtime.tracker == "none" else [runtime.tracker],
        log_level="warning",
        **trainer_settings(config, runtime.launch),
    )
