"""Adapters folded into their base."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from score_core.errors import UserError
from score_core.models.folders import check_model, load_model, load_tokenizer
from tasks.commands.merge import merge
from tests.small_run import RUNTIME, folders, small_config, train_stage

ROOT = Path(__file__).resolve().parents[3]
LORA = {"rank": 4, "alpha": 8, "targets": "all-linear"}


def test_a_merged_model_answers_like_base_and_adapter(small_run: Path, tmp_path: Path) -> None:
    config = small_config(lora=LORA, stage2={"learning_rate": 0.05})
    train_stage("stage2", config, RUNTIME, folders(small_run, tmp_path, "adapter"))
    line = [sys.executable, "-m", "tasks.commands.merge", "--adapter", str(tmp_path / "adapter")]
    line += ["--base", str(small_run / "base"), "--output", str(tmp_path / "merged")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_model(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    ids = torch.tensor([load_tokenizer(tmp_path / "merged")("12+34=").input_ids])
    with torch.no_grad():
        merged, adapted, base = (
            load_model(folder, base=small_run / "base")(input_ids=ids).logits
            for folder in (tmp_path / "merged", tmp_path / "adapter", small_run / "base")
        )
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert (merged - base).abs().max() > 0.01
    with pytest.raises(UserError, match="exists and is not replaced"):
        merge(tmp_path / "adapter", small_run / "base", tmp_path / "adapter", "auto")


def test_a_whole_model_needs_no_merging(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no adapter_config.json, expected a PEFT adapter; .* needs no merging"
    ):
        merge(small_run / "base", small_run / "base", tmp_path / "merged", "auto")
