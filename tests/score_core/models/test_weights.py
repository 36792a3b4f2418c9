"""What is read of weight files: how much of a model has moved."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from score_core.models.folders import load_model
from score_core.models.weights import changed_share


def test_of_a_new_adapter_only_what_training_moved_counts(small_run: Path, tmp_path: Path) -> None:
    """Half of it is drawn at random, in embeddings the other half; nothing of that is training's doing."""
    base = small_run / "base"
    settings = LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base), settings)
    model.save_pretrained(str(tmp_path / "untrained"))
    assert changed_share(base, tmp_path / "untrained") == 0.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.add_(1.0)
    model.save_pretrained(str(tmp_path / "trained"))
    assert changed_share(base, tmp_path / "trained") == 1.0


def test_all_numbers_count_of_what_was_there_before(small_run: Path, tmp_path: Path) -> None:
    model = load_model(small_run / "base")
    with torch.no_grad():
        moved = next(iter(model.parameters())).add_(1.0)
    model.save_pretrained(str(tmp_path / "trained"))
    share = moved.numel() / sum(weight.numel() for weight in model.parameters())
    assert changed_share(small_run / "base", tmp_path / "trained") == share
