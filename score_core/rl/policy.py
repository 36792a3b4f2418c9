"""The two models of a stage: the policy, whole or with an adapter, and its frozen reference."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from score_core.config.parsing import Config
from score_core.config.schema import Stage
from score_core.models.folders import ADAPTER_CONFIG, load_model
from score_core.rl.objective import Objective


def load_policy(config: Config, start: Path, base: Path, device: torch.device) -> PreTrainedModel | PeftModel:
    """The model to train: whole, or the base model with the adapter of `start` or a new one.

    Args:
        device: where packed weights go; others are moved there when they are shared out.
    """
    if config.lora is None:
        return load_model(start, config.dtype)
    model = _load_frozen(config, base, device)
    # ZeRO-3 cannot hold an adapter in another dtype than the weights it sits on.
    widen = not is_deepspeed_zero3_enabled()
    if (start / ADAPTER_CONFIG).exists():
        return PeftModel.from_pretrained(model, start, is_trainable=True, autocast_adapter_dtype=widen)
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
        autocast_adapter_dtype=widen,
    )


def load_reference(
    config: Config, stage: Stage, objective: Objective, folder: Path, device: torch.device
) -> PreTrainedModel | None:
    """A frozen pi_ref; None where nobody needs one, or the policy without its adapter is it."""
    needed = any(objective.kl_weight) or stage.offline_first_attempts > 0
    # A folder with an adapter is the model of an earlier phase, not the base model.
    if not needed or (config.lora is not None and not (folder / ADAPTER_CONFIG).exists()):
        return None
    return _load_frozen(config, folder, device).requires_grad_(False)


def _load_frozen(config: Config, folder: Path, device: torch.device) -> PreTrainedModel:
    if config.quantize is None:
        return load_model(folder, config.dtype)
    return load_model(folder, config.dtype, device, quantize=config.quantize)
