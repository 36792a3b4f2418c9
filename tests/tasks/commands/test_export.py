"""Exports are folders that transformers and peft load, and replace nothing that is not theirs."""

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from score_core.errors import UserError
from tasks.commands.export import MARK, export, main

CARD = "---\nlibrary_name: transformers\n---\n# A card\n"


def tiny_model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=17,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return Qwen2ForCausalLM(config)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A checkout after a run: models/stage2 with a card of its own, and the report's card."""
    monkeypatch.chdir(tmp_path)
    tiny_model().save_pretrained(tmp_path / "models" / "stage2")
    (tmp_path / "models" / "stage2" / "README.md").write_text("without final metrics")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "model_card.md").write_text(CARD)
    return tmp_path


def test_export_loads_and_carries_the_card(run, capsys):
    assert main(["--output", "out"]) == 0
    assert (run / "out" / "README.md").read_text() == CARD
    loaded = AutoModelForCausalLM.from_pretrained(run / "out").state_dict()
    for name, tensor in tiny_model().state_dict().items():
        assert torch.equal(loaded[name], tensor)
    assert "from_pretrained('out')" in capsys.readouterr().out
    assert (run / "models" / "stage2" / "README.md").read_text() == "without final metrics"


@pytest.fixture
def adapter(run):
    """As training leaves it: its base model is named as seen from the checkout."""
    base = Path("models", "base")
    tiny_model().save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained("models/adapter")
    folder = Path("models", "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/base"
    return folder


def test_an_adapter_loads_from_any_folder(run, adapter, capsys, monkeypatch):
    export(adapter, run / "reports" / "model_card.md", run / "out")
    said = capsys.readouterr().out
    assert "LoRA adapter" in said and f"{run / 'models' / 'base'}, which only this machine has" in said
    assert "AutoPeftModelForCausalLM.from_pretrained" in said
    monkeypatch.chdir("/")
    AutoPeftModelForCausalLM.from_pretrained(run / "out")


def test_an_adapter_names_the_hub_that_its_base_is_from(run, adapter, capsys):
    fetched = {"path": "owner/model", "revision": "main", "commit": "abc123"}
    (run / "models" / "base" / "source.json").write_text(json.dumps(fetched))
    export(adapter, run / "reports" / "model_card.md", run / "out")
    config = json.loads((run / "out" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/model", "abc123")
    assert config["r"] == 2
    assert "owner/model of the hub, commit abc123" in capsys.readouterr().out


def test_an_export_may_replace_an_export(run):
    assert main([]) == 0
    (run / "export" / "stale").touch()
    (run / "reports" / "model_card.md").write_text("new card")
    assert main([]) == 0
    assert (run / "export" / "README.md").read_text() == "new card"
    assert not (run / "export" / "stale").exists()


def test_a_folder_of_another_origin_is_kept_unless_forced(run, capsys):
    (run / "mine").mkdir()
    (run / "mine" / "thesis.tex").write_text("years of work")
    assert main(["--output", "mine"]) == 2
    assert "--force" in capsys.readouterr().err
    assert (run / "mine" / "thesis.tex").read_text() == "years of work"
    assert main(["--output", "mine", "--force"]) == 0
    assert not (run / "mine" / "thesis.tex").exists()


@pytest.mark.parametrize("output", [".", "..", "models", "models/stage2", "models/stage2/inside"])
def test_checkout_and_model_are_never_replaced(run, output):
    for force in ([], ["--force"]):
        assert main(["--output", output, *force]) == 2
    assert (run / "models" / "stage2" / "config.json").exists()
    assert {path.name for path in run.iterdir()} == {"models", "reports"}


def test_files_linked_read_only_from_a_cache_are_copied(run):
    for file in (run / "models" / "stage2").iterdir():
        file.chmod(0o444)
    assert main([]) == 0
    assert all(file.stat().st_mode & 0o200 for file in (run / "export").iterdir())


def test_a_failed_export_leaves_nothing(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([])
    assert {path.name for path in run.iterdir()} == {"models", "reports"}


@pytest.mark.parametrize(
    ("missing", "stage"), [("models/stage2/config.json", "train_stage2"), ("reports/model_card.md", "report")]
)
def test_missing_inputs_name_the_stage(run, missing, stage):
    (run / missing).unlink()
    with pytest.raises(UserError, match=f"dvc repro {stage}"):
        export(run / "models" / "stage2", run / "reports" / "model_card.md", run / "out")
    assert not (run / "out" / MARK).exists()
