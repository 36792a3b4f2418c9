"""Faster ways to compute the same network, which differ from the plain one by rounding only."""

from importlib import import_module
from typing import Any, TypeVar

from peft import PeftModel
from torch import nn

from score_core.config.runtime import Runtime
from score_core.errors import UserError, refusing

# Of Liger's kernels those below the output layer. Its fused losses have no place here: the trainer makes
# log-probabilities of hidden states itself, at sampled positions only (score_core/rl/logprobs.py).
LIGER = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}

Model = TypeVar("Model", bound=nn.Module)


def use_kernels(model: Model, runtime: Runtime) -> Model:
    """Has `model`, and the base under an adapter, computed as runtime.yaml says; returns it.

    Policy, reference and what is sampled from should all be, or they differ by more than their weights.

    Raises:
        UserError: the model's family has no such kernels.
    """
    network: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    family = network.config.model_type
    if runtime.attention != "auto":
        setting = f"runtime.yaml: attention: {runtime.attention}"
        with refusing(f"{setting} is not there for {family}", "use auto"):
            network.set_attn_implementation(runtime.attention)
        if network.config._attn_implementation != runtime.attention:
            raise UserError(f"{setting} is not there for {family}; use auto.")
    if runtime.fused_kernels == "liger":
        from transformers.integrations.liger import apply_liger_kernel

        known = import_module("liger_kernel.transformers.monkey_patch")  # no requirement: it needs a GPU
        if family not in known.MODEL_TYPE_TO_APPLY_LIGER_FN:
            raise UserError(f"runtime.yaml: fused_kernels: liger has none for {family}; use none.")
        apply_liger_kernel(network, LIGER)
    return model
