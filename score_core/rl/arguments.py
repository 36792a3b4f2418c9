"""A stage's settings in the words of `transformers.TrainingArguments`."""

import os
from pathlib import Path

from transformers import TrainingArguments

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.config.training import Training
from score_core.distributed import trainer_settings
from score_core.seeding import derive_seed


def micro_batches(settings: Training, runtime: Runtime, processes: int = 1) -> int:
    """Into how many micro-batches of whole problems a process splits its share: the fewest that fit."""
    problems = settings.prompts_per_step // processes
    most = max(1, runtime.micro_batch_size // settings.samples_per_prompt)  # problems at a time
    return next(
        count for count in range(1, problems + 1) if problems % count == 0 and problems <= count * most
    )


def training_arguments(
    config: Config, runtime: Runtime, settings: Training, work: Path, name: str
) -> TrainingArguments:
    """The Trainer's own settings, which are the stage's in other words."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # of the launcher, which no Trainer has read yet
    count = micro_batches(settings, runtime, processes)
    return TrainingArguments(
        output_dir=str(work),
        run_name=f"{config.profile}-{name}",
        max_steps=settings.steps,
        per_device_train_batch_size=settings.prompts_per_step // processes // count,
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
