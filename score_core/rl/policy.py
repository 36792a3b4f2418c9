"""The two models of a stage: the policy, whole or with an adapter, and its frozen reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from score_core.config.schema import Config
from score_core.distributed import gather_weights, prepare_frozen
from score_core.errors import UserError, refusing
from score_core.models.folders import ADAPTER_CONFIG, load_adapter, load_model


def load_policy(config: Config, start: Path, base: Path, device: torch.device) -> PreTrainedModel | PeftModel:
    """The model to train: whole, or the base model with the adapter of `start` or a new one.

    Args:
        base: a whole model, which adapters sit on.
        device: where packed weights go; others are moved there when they are distributed.

    Raises:
        UserError: `start` holds an adapter and whole models are to be trained.
    """
    adapter = (start / ADAPTER_CONFIG).exists()
    if config.lora is None:
        if adapter:
            raise UserError(
                f"{start}: holds an adapter, and lora: null trains all weights; set lora, or start from a "
                "whole model (`python -m tasks.commands.merge` makes one)."
            )
        return load_model(start, "float32")  # whatever is computed in: see `mixed_precision`
    model = _load_frozen(config, base, device)
    # ZeRO-3 cannot hold an adapter in another dtype than the weights it sits on.
    widen = not is_deepspeed_zero3_enabled()
    if adapter:
        return load_adapter(model, start, is_trainable=True, autocast_adapter_dtype=widen)
    targets = config.lora.targets
    settings = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    with refusing(f"lora: {base} takes no such adapter", "let targets name linear layers, or be all-linear"):
        return get_peft_model(model, settings, autocast_adapter_dtype=widen)


def stands_apart(config: Config, folder: Path) -> bool:
    """Whether pi_ref is a model of its own, and not the policy without its adapter."""
    # A folder with an adapter is the model of an earlier phase, not the base model.
    return config.lora is None or (folder / ADAPTER_CONFIG).exists()


def load_reference(config: Config, folder: Path, device: torch.device) -> PreTrainedModel | None:
    """A frozen pi_ref; None where the policy without its adapter is it."""
    if not stands_apart(config, folder):
        return None
    if config.lora is None and config.dtype == "bfloat16":
        return as_autocast_does(load_model(folder, "float32")).requires_grad_(False)
    return _load_frozen(config, folder, device).requires_grad_(False)


def switch_off_dropout(model: nn.Module) -> None:
    """Makes training mode the network that was sampled from, whatever dropout model or adapter name."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)  # attention reads its share from itself


def as_autocast_does(model: PreTrainedModel) -> PreTrainedModel:
    """Rounds what autocast rounds to bf16 at every use, and nothing else: the same numbers in less memory.

    So the reference says to the last bit what the policy says while they are equal, whose embedding and
    norms compute in float32. An output layer that shares the embedding's weights keeps them.
    """
    tied = model.get_input_embeddings().weight
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight is not tied:
            module.to(torch.bfloat16)
    return model


class Reference:
    """pi_ref in training: a frozen model, or the policy with its adapter switched off.

    Args:
        trainer: of the policy.
        frozen: the frozen model, if there is one.
    """

    def __init__(self, trainer: Trainer, frozen: PreTrainedModel | None) -> None:
        self.trainer = trainer
        self.model: nn.Module | None = frozen
        if frozen is not None:
            self.model = prepare_frozen(frozen, trainer.accelerator)

    @contextmanager
    def scoring(self) -> Iterator[nn.Module]:
        """The model for forwards; its weights may be split over the processes."""
        if self.model is not None:
            yield self.model
        else:
            policy: Any = self.trainer.accelerator.unwrap_model(self.trainer.model)
            with policy.disable_adapter():
                yield policy

    def project(self, hidden_PH: Tensor) -> Tensor:
        """Its output layer: logits (P, V) of hidden states, without gradient."""
        with torch.no_grad(), self.scoring() as model:
            # As a call of the model, for which wrappers put together weights that are split.
            logits: Tensor = model(project=hidden_PH)
        return logits

    @contextmanager
    def sampling(self) -> Iterator[PreTrainedModel]:
        """The model with all its weights on every process; all processes must enter."""
        wrapped = self.trainer.model_wrapped if self.model is None else self.model
        with self.scoring(), gather_weights(wrapped, self.trainer.accelerator) as whole:
            yield whole


def _load_frozen(config: Config, folder: Path, device: torch.device) -> PreTrainedModel:
    return load_model(folder, config.dtype, device if config.quantize else "cpu", quantize=config.quantize)
