"""What a server is handed computes what the trainer's model computes, and the trainer's stays as it was."""

import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from score_core.models import handover
from score_core.models.handover import (
    PREFIX,
    adapter_is_on,
    bytes_of,
    bytes_of_adapter,
    merged_weights,
    passing_folder,
    write_adapter,
    write_config,
    write_whole,
)

IDS = torch.tensor([[2, 9, 8, 14, 7], [2, 11, 12, 13, 4]])


def adapted(model: Any, targets: Any = "all-linear", rank: int = 4) -> Any:
    """The model with an adapter that changes what it says."""
    torch.manual_seed(3)
    found = get_peft_model(model, LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    return found.eval()


@torch.no_grad()
def change_adapter(model: Any, change: Callable[[torch.Tensor], object]) -> None:
    """Changes what is added to each layer, by the half of its adapter that starts at 0."""
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            change(weight)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [False, True])
def test_the_folder_computes_what_the_model_computes(
    make_model: Callable[..., Any], tmp_path: Path, family: str, tied: bool, lora: bool
) -> None:
    model = make_model(family, tied=tied)
    plain = logits(model)
    if lora:
        model = adapted(model, ["c_attn"] if family == "gpt2" else "all-linear")
        assert not torch.allclose(logits(model), plain, atol=0.1)
    before = deepcopy(model.state_dict())
    write_whole(model, tmp_path / "whole", torch.float32)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)
    assert not loaded.config.tie_word_embeddings
    files = [load_file(file) for file in (tmp_path / "whole").glob("*.safetensors")]
    assert any("lm_head.weight" in weights for weights in files)
    assert bytes_of(model, torch.float32) >= sum(w.nbytes for weights in files for w in weights.values())
    assert model.config.tie_word_embeddings == tied


def test_an_adapter_that_is_switched_off_is_left_out(make_model: Callable[..., Any], tmp_path: Path) -> None:
    model = make_model()
    plain = logits(model)
    model = adapted(model)
    with model.disable_adapter():
        write_whole(model, tmp_path / "reference", torch.float32)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "reference")), plain)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_base_and_adapter_apart_compute_what_the_model_computes(
    make_model: Callable[..., Any], tmp_path: Path, family: str
) -> None:
    model = adapted(make_model(family), ["c_attn"] if family == "gpt2" else "all-linear")
    (tmp_path / "adapter").mkdir()
    write_whole(model, tmp_path / "base", torch.float32, adapters=False)
    write_adapter(model, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with model.disable_adapter():
        assert not adapter_is_on(model)
        torch.testing.assert_close(logits(base), logits(model))
    assert adapter_is_on(model)
    found = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(found), logits(model))
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert bytes_of_adapter(model) == sum(weight.nbytes for weight in weights.values())


def test_an_adapter_alone_keeps_what_merging_into_bf16_loses(
    make_model: Callable[..., Any], tmp_path: Path
) -> None:
    model = adapted(make_model())
    change_adapter(model, lambda weight: weight.mul_(1e-5))
    for name, adapters in (("merged", True), ("base", False)):
        write_whole(model, tmp_path / name, torch.bfloat16, adapters)
    merged, base = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "base"))
    changed = sum(int((merged[name] != weight).sum()) for name, weight in base.items())
    assert changed < 0.01 * sum(weight.numel() for weight in base.values())
    write_adapter(model, tmp_path)
    found = load_file(tmp_path / "adapter_model.safetensors")
    kept = {name.replace(".default.", "."): weight for name, weight in model.named_parameters()}
    assert found and all(torch.equal(weight, kept[name]) for name, weight in found.items())


def test_adapters_are_added_in_float32_whatever_is_computed_in(make_model: Callable[..., Any]) -> None:
    model = adapted(make_model())
    expected = dict(merged_weights(model.get_base_model()))
    with torch.autocast("cpu", torch.bfloat16):
        found = dict(merged_weights(model.get_base_model()))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_weights_are_written_in_the_dtype_that_is_asked_for(
    make_model: Callable[..., Any], tmp_path: Path
) -> None:
    write_whole(make_model(), tmp_path, torch.bfloat16)
    assert {w.dtype for w in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoConfig.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_a_server_is_started_on_a_configuration_alone(small_run: Path, tmp_path: Path) -> None:
    write_config(small_run / "base", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    assert AutoConfig.from_pretrained(small_run / "base").tie_word_embeddings
    found = AutoConfig.from_pretrained(tmp_path)
    assert not found.tie_word_embeddings and found.architectures == ["Qwen2ForCausalLM"]


def test_a_folder_is_removed_however_its_block_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyError), passing_folder(tmp_path, 1) as folder:
        (folder / "x").write_text("weights")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_a_live_ones_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with passing_folder(tmp_path, 1) as mine:
        left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
        left.mkdir()
        (left / "x").write_text("weights")
        (tmp_path / f"{PREFIX}other-{dead.pid}-x").mkdir()  # of another machine
        with passing_folder(tmp_path, 1):
            assert mine.exists() and not left.exists()
            assert (tmp_path / f"{PREFIX}other-{dead.pid}-x").exists()


def test_weights_that_memory_has_no_room_for_go_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(handover, "MEMORY", tmp_path / "shm")
    monkeypatch.setattr(handover.tempfile, "gettempdir", lambda: str(tmp_path))
    with passing_folder(None, 1) as folder:
        assert folder.parent == tmp_path / "shm"
    with passing_folder(None, 2**60) as folder:
        assert folder.parent == tmp_path
