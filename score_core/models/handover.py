"""A model of the trainer's as folders that a server loads: whole, no weights shared, or an adapter alone."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig, PreTrainedModel

from score_core.models.folders import load_configs

MEMORY = Path("/dev/shm")  # files that are never on a disk, where Linux has them
PREFIX = "score-weights-"
ROOM = 1.1  # times the weights: what a folder needs, with its other files


def untied(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same model with an output layer of its own weights.

    A server that is given tied weights anew keeps its old output layer, and says nothing.
    """
    changed = deepcopy(config)
    for part in (changed, changed.get_text_config()):
        part.tie_word_embeddings = False
    return changed


def write_config(base: Path, folder: Path) -> None:
    """Writes to `folder` what a server needs to make room for the model in `base`, without its weights."""
    untied(load_configs(base)[0]).save_pretrained(str(folder))


def write_whole(
    model: PreTrainedModel | PeftModel, folder: Path, dtype: torch.dtype, adapters: bool = True
) -> None:
    """Writes what `model` computes with now, which is left as it is.

    Args:
        model: with all its weights in this process; of a `peft.PeftModel` adapters that are switched off
            are left out.
        dtype: of the weights to write.
        adapters: False leaves those out that are on, too.
    """
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    # FSDP makes a class of its own of the model's.
    kind: Any = next(one for one in type(whole).__mro__ if not issubclass(one, FSDPModule))
    with torch.device("meta"):
        skeleton = kind(untied(whole.config))
    state = {name: weight.to("cpu", dtype) for name, weight in merged_weights(whole, adapters)}
    # The skeleton's class knows how its weights are called and laid out in files.
    skeleton.to(dtype).save_pretrained(str(folder), state_dict=_unshared(state))


@torch.no_grad()
def merged_weights(whole: PreTrainedModel, adapters: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Names as without adapters, and weights with LoRA's added; shared ones under each of their names."""
    modules = whole.named_modules() if adapters else ()
    layers = {name: layer for name, layer in modules if isinstance(layer, LoraLayer)}
    for name, weight in whole.named_parameters(remove_duplicate=False):
        owner, _, kind = name.partition(".base_layer.")
        if owner in layers and kind == "weight" and not layers[owner].disable_adapters:
            layer: Any = layers[owner]
            # Adapters are small numbers: they are added in float32, whatever is computed in.
            with torch.autocast(weight.device.type, enabled=False):
                for adapter in layer.active_adapters:
                    weight = weight.float() + layer.get_delta_weight(adapter).float()
        if ".lora_" not in name:
            yield name.replace(".base_layer.", "."), weight.detach()


def write_adapter(model: PeftModel, folder: Path) -> None:
    """Writes the adapter of `model`, of which there is one, as PEFT does; in float32."""
    (name,) = model.peft_config
    model.peft_config[name].save_pretrained(str(folder))
    state = {
        key.replace(f".{name}.", "."): weight.detach().to("cpu", torch.float32).contiguous()
        for key, weight in _adapter_weights(model)
    }
    save_file(state, folder / "adapter_model.safetensors")


def bytes_of_adapter(model: PeftModel) -> int:
    """What an adapter takes in a folder, about."""
    return sum(weight.numel() for _, weight in _adapter_weights(model)) * torch.float32.itemsize


def _adapter_weights(model: PeftModel) -> Iterator[tuple[str, Tensor]]:
    # Not by the model's state, for which FSDP would split the weights again.
    return ((name, weight) for name, weight in model.named_parameters() if ".lora_" in name)


def adapter_is_on(model: PeftModel) -> bool:
    """Whether `model` computes with its adapter now."""
    layers = (layer for layer in model.modules() if isinstance(layer, LoraLayer))
    return not any(layer.disable_adapters for layer in layers)


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with memory of its own for each, as files want it; the trainer's are not touched."""
    seen: set[int] = set()
    for name, weight in state.items():
        if weight.data_ptr() in seen:
            state[name] = weight.clone()
        seen.add(weight.data_ptr())
    return state


def bytes_of(model: PreTrainedModel | PeftModel, dtype: torch.dtype) -> int:
    """What the weights of a model take in a folder, about."""
    return (
        sum(weight.numel() for _, weight in model.named_parameters(remove_duplicate=False)) * dtype.itemsize
    )


@contextmanager
def passing_folder(place: Path | None, size: int) -> Iterator[Path]:
    """A new folder for `size` bytes of weights, which is removed afterwards.

    Args:
        place: where; None takes memory, or where that is too small the folder for temporary files.
    """
    if place is None:
        memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM * size
        place = MEMORY if memory else Path(tempfile.gettempdir())
    mine = f"{PREFIX}{socket.gethostname()}-"
    for left in place.glob(f"{mine}*"):
        # By a process that was killed.
        owner = left.name.removeprefix(mine).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-", dir=place) as folder:
        yield Path(folder)
