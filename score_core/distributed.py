"""Many processes: whether the launched strategy is in effect, and models whose weights are split.

How processes are started is `tasks/runner/launch.py`'s business; here is what they do once they run.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import distributed, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from score_core.config.runtime import Launch
from score_core.config.schema import Config
from score_core.errors import UserError

log = logging.getLogger(__name__)
# For the slowest process, which may have a whole batch to answer that others have not; NCCL's own is 10.
PATIENCE = timedelta(minutes=30)
# Numbers that DeepSpeed sums at a time: its own 500 million are a gigabyte, whatever the model's size.
ZERO = {"reduce_bucket_size": 50_000_000}


def trainer_settings(config: Config, launch: Launch) -> dict[str, Any]:
    """What `TrainingArguments` must be told so that the launched strategy takes effect.

    FSDP2 would keep the gradients of all weights on every process from a micro-batch to the next, unless it
    shares them out after each. On CPUs `use_cpu` is what makes processes one group under ddp, and what would
    silently turn every other strategy into ddp; those need the name of the backend instead.
    """
    settings: dict[str, Any] = {
        "bf16": config.mixed_precision(launch.strategy),
        "activation_checkpointing": launch.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "ddp_find_unused_parameters": False,
        "ddp_timeout": int(PATIENCE.total_seconds()),
    }
    if launch.strategy == "fsdp2":
        settings["accelerator_config"] = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    if torch.cuda.is_available():
        return settings
    if launch.strategy in ("zero2", "zero3", "fsdp2"):
        return {**settings, "ddp_backend": "gloo"}
    return {**settings, "use_cpu": True}


def init_processes() -> PartialState:
    """Joins the launched processes where no Trainer does it; alone it is one process."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def check_strategy(state: Any, launch: Launch) -> None:
    """Logs which strategy is in effect, over how many processes.

    Args:
        state: accelerate's, of a Trainer's accelerator or `init_processes`'s.
        launch: what was asked for; `auto` takes what there is.

    Raises:
        UserError: it is another one than was asked for.
    """
    effect = in_effect(state)
    log.info(
        "running as %s: %s, %d processes on %d machines, this is %d on %s",
        effect,
        state.distributed_type,
        state.num_processes,
        launch.machines,
        state.process_index,
        state.device,
    )
    if launch.strategy == "auto":
        return
    expected = (launch.strategy, launch.world_size)
    if (effect, state.num_processes) != expected:
        raise UserError(
            f"runtime.yaml: launch: asked for {expected[0]} with {expected[1]} processes, and what runs is "
            f"{effect} with {state.num_processes} ({state.distributed_type}); start the stage as "
            "a plain command, without accelerate's or torchrun's variables in the environment."
        )


def in_effect(state: Any) -> str:
    """The strategy's name, from what accelerate has set up."""
    kind = state.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return f"zero{state.deepspeed_plugin.zero_stage}"
    if kind == DistributedType.FSDP:
        return f"fsdp{state.fsdp_plugin.fsdp_version}"
    return "single" if kind == DistributedType.NO else "ddp"


def launched() -> int:
    """How many processes the launcher has started, which is known before they have joined."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number; 0 writes what all have made."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def adjust_strategy(accelerator: Accelerator) -> None:
    """Has what mixed precision would round to bf16 on the way stay float32, and buffers small.

    Under FSDP2 these are log-probabilities, the reference's too, and the mean over processes of gradients.
    Under ZeRO it is the sum over micro-batches, in which bf16 loses whatever is 256 times smaller. DDP would
    hold all gradients twice: as they are, and as they are sent.
    """
    if accelerator.ddp_handler is not None:
        accelerator.ddp_handler.gradient_as_bucket_view = True
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = accelerator.state.deepspeed_plugin.deepspeed_config
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
        settings["zero_optimization"] |= ZERO
    plugin = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if plugin is not None and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(
            plugin.mixed_precision_policy,
            output_dtype=None,
            cast_forward_inputs=False,
            reduce_dtype=torch.float32,
        )


def prepare_frozen(model: nn.Module, accelerator: Accelerator) -> Any:
    """A frozen model, in the precision and split as the strategy does it to the trained one."""
    from accelerate.utils import fsdp2_prepare_model
    from trl.models.utils import prepare_deepspeed

    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return prepare_deepspeed(model, accelerator)
    if accelerator.is_fsdp2:
        # Layer by layer; TRL's would gather all of its weights for every forward.
        return fsdp2_prepare_model(accelerator, model).eval()
    return accelerator.prepare_model(model, evaluation_mode=True)


@contextmanager
def gather_weights(model: Any, accelerator: Accelerator) -> Iterator[PreTrainedModel]:
    """`model` without its wrapper and with all its weights on every process, for sampling.

    Weights are gathered once, on entry, so processes may make different numbers of calls inside; and
    where they are float32 and computed with in bf16, cast once. All processes must enter.
    """
    from torch.distributed.fsdp import FSDPModule
    from trl.models.utils import unwrap_model_for_generation

    if not accelerator.is_fsdp2:
        if not is_deepspeed_zero3_enabled():
            # autocast keeps casted weights until the outermost one is left: the model's own, or this.
            with accelerator.autocast():
                yield accelerator.unwrap_model(model)
            return
        with unwrap_model_for_generation(model, accelerator) as whole:
            # TRL leaves one hook, in which processes may compare notes: they would wait for one that
            # has nothing to sample.
            offload = getattr(model.optimizer, "parameter_offload", model.optimizer)
            offload.fwd_pre_hook.remove()
            yield whole
            offload.fwd_pre_hook = offload.module.register_forward_pre_hook(
                lambda *_: offload.get_param_coordinator().reset_step()
            )
        return
    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    groups = [group for part in parts for group in part._get_fsdp_state()._fsdp_param_groups]
    # There is a public way to switch this off and none to read it, which restoring it needs.
    after = [group.post_forward_mesh_info for group in groups]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield model
    finally:
        for group, mesh in zip(groups, after, strict=True):
            group.post_forward_mesh_info = mesh
        for part in parts:
            part.reshard()


def full_state_dict(model: Any, accelerator: Accelerator) -> dict[str, torch.Tensor] | None:
    """All weights of a model that is split over the processes; None where none is, or on later ones.

    All processes must call.
    """
    if not (accelerator.is_fsdp2 or is_deepspeed_zero3_enabled()):
        return None
    state = accelerator.get_state_dict(model)
    # Gathering copies what tied layers share, which a model folder holds once.
    for name in accelerator.unwrap_model(model).all_tied_weights_keys if state else ():
        state.pop(name, None)
    return state


def is_finite(model: nn.Module) -> bool:
    """Whether the trained weights that this process holds are numbers; it may hold a part of each."""
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    # What ZeRO-3 leaves of a parameter here is an attribute, what FSDP2 leaves is the parameter's own part.
    parts = (getattr(weight, "ds_tensor", weight) for weight in trained)
    local = (part.to_local() if isinstance(part, DTensor) else part for part in parts)
    return all(bool(part.isfinite().all()) for part in local)


def most_calls(calls: int, device: torch.device) -> int:
    """How often a module with split weights is to be called: as often as the process that needs it most.

    Under ZeRO-3 and FSDP2 each call is a collective operation, so all processes must make equally many.
    """
    split = is_deepspeed_zero3_enabled() or parse_flag_from_env("ACCELERATE_USE_FSDP")
    if not split or world() == 1:
        return calls
    most = torch.tensor(calls, device=device)
    distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
    return int(most)
