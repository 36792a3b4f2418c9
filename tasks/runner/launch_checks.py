"""What is to be launched on this machine, and which combinations of settings are refused."""

from importlib.util import find_spec

import torch

from score_core.config.parsing import Config
from score_core.config.runtime import Launch
from score_core.errors import UserError


def resolve(launch: Launch) -> Launch:
    """The same with `auto` and nulls replaced by what this machine has."""
    gpus = torch.cuda.device_count()
    processes = 1 if launch.strategy == "single" else launch.processes or max(1, gpus)
    strategy = launch.strategy
    if strategy == "auto":
        strategy = "ddp" if processes * launch.machines > 1 else "single"
    return launch.model_copy(update={"strategy": strategy, "processes": processes})


def check_launch(config: Config, launch: Launch, section: str | None) -> None:
    """Refuses what cannot work, before anything is started.

    Args:
        launch: as `resolve` returns it.
        section: the section of params.yaml of a stage that trains; None for an evaluation, which runs as
            ddp or in one process.

    Raises:
        UserError: with the reason and the remedy.
    """
    gpus, total = torch.cuda.device_count(), launch.world_size
    where = f"runtime.yaml: launch.strategy: {launch.strategy}"
    if gpus and (launch.processes or 1) > gpus:
        raise UserError(
            f"runtime.yaml: launch.processes: {launch.processes} processes and {gpus} visible GPUs; each "
            "needs one of its own; lower it, or use null for all of them."
        )
    if launch.strategy == "ddp" and total == 1:
        raise UserError(f"{where} of one process is single; use single or auto, or more processes.")
    if launch.strategy == "fsdp2" and not gpus:
        raise UserError(f"{where} needs GPUs and none is visible; on CPUs use ddp, zero2 or zero3.")
    if launch.strategy.startswith("zero") and find_spec("deepspeed") is None:
        raise UserError(f"{where} needs deepspeed, which is not installed; `make setup` installs it.")
    if launch.mixed_precision is not None and launch.strategy not in ("single", "ddp") and not gpus:
        raise UserError(
            f"{where} with launch.mixed_precision: {launch.mixed_precision} needs GPUs and none is visible; "
            "on CPUs use ddp, or mixed_precision: null."
        )
    if config.quantize is not None:
        _check_quantized(launch, gpus)
    if section is None:
        return
    if (
        launch.strategy in ("zero2", "zero3")
        and config.dtype == "bfloat16"
        and launch.mixed_precision is None
    ):
        raise UserError(
            f"{where} with model.dtype: bfloat16 needs launch.mixed_precision: bf16, with which it keeps "
            "float32 copies of the trained weights; set it, or use another strategy."
        )
    prompts = config.stage(section).prompts_per_step
    if prompts % total:
        raise UserError(
            f"params.yaml: {section}: prompts_per_step: {prompts} is not divisible by the {total} processes "
            "of runtime.yaml, which share a step's problems evenly; use another number of processes "
            f"({', '.join(str(n) for n in range(1, prompts + 1) if prompts % n == 0)})."
        )


def _check_quantized(launch: Launch, gpus: int) -> None:
    reason = None
    if launch.strategy in ("zero3", "fsdp2"):
        reason = (
            f"4-bit weights are not split by {launch.strategy}; they are a quarter of the size, so "
            "use ddp or zero2, which hold all of them on every GPU"
        )
    elif find_spec("bitsandbytes") is None:
        reason = "bitsandbytes is not installed; `pip install -r requirements-4bit.txt`, or quantize: null"
    elif not gpus:
        reason = "4-bit weights need a GPU and none is visible; use quantize: null"
    if reason is not None:
        raise UserError(f"params.yaml: model.quantize: nf4: {reason}.")
