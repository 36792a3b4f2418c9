"""What is not a number stops a stage at once, and reaches neither a model nor a checkpoint."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from score_core.checkpointing import resumable_trainer
from score_core.embedded import addition_model
from score_core.errors import UserError
from score_core.models.folders import load_model
from score_core.problems import read_problems
from score_core.rl.trainer import PolicyTrainer
from tests.configs import config, runtime
from tests.small_run import evaluate, folders, run_folder, small_config, train_stage

OFTEN = runtime(threads=1, checkpoints={"every_seconds": 1e-9, "keep": 9})
LORA = {"rank": 4, "alpha": 8}


def refused(run: Path, work: Path, words: str, start: Path | None = None, **sections: Any) -> Path:
    """Trains Stage II, which has to be refused and to publish nothing; returns its run's folder."""
    settings, target = small_config(**sections), folders(run, work, "stage2", start)
    with pytest.raises(UserError, match=words) as raised:
        train_stage("stage2", settings, OFTEN, target)
    assert "\n" not in str(raised.value)
    assert not target.output.exists() and not list(target.metrics.parent.glob("*"))
    return run_folder("stage2", settings, OFTEN, target)


@pytest.fixture
def broken(small_run: Path, tmp_path: Path) -> Path:
    """The base model with one number that is none."""
    folder = tmp_path / "broken"
    load_model(small_run / "base").save_pretrained(folder)
    for file in (small_run / "base").iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_learning_rate_that_ruins_the_weights(
    small_run: Path, tmp_path: Path, lora: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = {"steps": 6, "learning_rate": 1e30, "final_learning_rate": 1.0, "validate_every": 6}
    words = r"after step [1-5] .*; lower the learning rate \(1e\+30 here\)"
    run = refused(small_run, tmp_path, words, stage2=stage, lora=lora)
    bar = capsys.readouterr().err
    assert "step/s" in bar and bar.endswith("\n"), "what stopped training begins a line of its own"
    for file in run.glob("checkpoint-*/*.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(file).values()), file


@pytest.mark.parametrize("what", ["loss", "gradient", "weights"])
def test_the_last_good_checkpoint_is_kept_and_gone_on_from(
    small_run: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    stage = {"steps": 4, "learning_rate": 0.01}
    train_stage("stage2", small_config(stage2=stage), OFTEN, folders(small_run, tmp_path, "whole"))
    monkeypatch.setattr(resumable_trainer, "LEAST_INTERVAL", 0)  # saves after each step
    compute, log = PolicyTrainer.compute_loss, PolicyTrainer.log

    def poison(trainer: PolicyTrainer, *given: Any, **named: Any) -> torch.Tensor:
        loss = compute(trainer, *given, **named)
        if trainer.state.global_step == 2 and what == "loss":
            return loss * float("nan")
        if trainer.state.global_step == 2 and what == "gradient":
            # The loss is finite, and its gradient infinite.
            weight = next(trainer.model.parameters()).flatten()[0]
            return loss + (weight - weight.detach()).abs().sqrt()
        return loss

    def spoil(trainer: PolicyTrainer, logs: dict[str, float], *given: Any) -> None:
        log(trainer, logs, *given)
        if trainer.state.global_step == 3 and what == "weights" and "loss" not in logs:
            next(trainer.model.parameters()).data.flatten()[0] = float("inf")

    with monkeypatch.context() as patched:
        patched.setattr(PolicyTrainer, "compute_loss", poison)
        patched.setattr(PolicyTrainer, "log", spoil)
        said = {"loss": "loss is nan", "gradient": "grad_norm is nan", "weights": "weights are NaN"}[what]
        words = f"after step 3 {said}.*the checkpoint of step 2 is intact"
        run = refused(small_run, tmp_path / "2", words, stage2=stage)
    assert [path.name for path in sorted(run.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2"]
    target = folders(small_run, tmp_path / "2", "stage2")
    with caplog.at_level(logging.INFO):
        train_stage("stage2", small_config(stage2=stage), OFTEN, target)
    assert "resumed from step 2" in caplog.text
    weights = "model.safetensors"
    assert (target.output / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_a_model_that_is_broken_is_not_trained(small_run: Path, tmp_path: Path, broken: Path) -> None:
    words = "after step 0 weights are NaN.*no checkpoint was written before"
    refused(small_run, tmp_path, words, start=broken)


def test_a_model_that_is_broken_gives_no_answers(small_run: Path, broken: Path) -> None:
    problems = read_problems(small_run / "data", "test")[:4]
    for temperature in (0.0, 1.0):
        settings = small_config(evaluation={"temperature": temperature})
        with pytest.raises(UserError, match=f"{broken}: the model's probabilities of tokens are not finite"):
            evaluate(broken, problems, settings, OFTEN)


def test_a_base_model_that_breaks_while_it_is_made_is_refused(tmp_path: Path) -> None:
    settings = config(
        data={"source": "addition", "digits": 2},
        model={"source": "addition", "steps": 9, "learning_rate": 1e30},
    )
    with pytest.raises(UserError, match=r"the loss of step \d is nan.*lower model\.learning_rate \(1e\+30"):
        addition_model.build(settings.model, settings.data, 1, tmp_path / "base")
    assert not (tmp_path / "base").exists()
