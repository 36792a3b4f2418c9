"""The gap between engine and trainer: noticed before it trains, corrected where it is small."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

from score_core.errors import UserError
from score_core.rl.gap import GapMonitor, importance_weights
from score_core.rl.logprobs import add_token_scoring, score
from score_core.rollout.engines import ENGINES
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Request, Sampled
from tests.sampling import sample
from tests.score_core.rl.test_trainer import first_step, make_trainer
from tests.small_run import HALF, RUNTIME, folders, run_folder, small_config, train_stage


class OffEngine(BuiltinEngine):
    """Says of every token that it was likelier than it was, from the given request on."""

    by, since, requests = 0.0, 0, 0

    def sample(self, conversation: Any, request: Request) -> Sampled:
        sampled = super().sample(conversation, request)
        if request.noise is not None:
            self.requests += 1
        off = self.by if self.requests > self.since else 0.0
        logp = [[[value + off for value in attempt] for attempt in row] for row in sampled.logp]
        return replace(sampled, logp=logp)


def test_weights_are_ratios_up_to_the_cap_and_1_where_the_two_agree() -> None:
    logp_P = torch.tensor([-1.0, -2.0, -0.5, -7.25], requires_grad=True)
    assert torch.equal(importance_weights(logp_P, logp_P.detach(), 2.0), torch.ones(4))
    sampled_P = torch.tensor([-1.5, -1.0, -3.0, -7.25])
    found = importance_weights(logp_P, sampled_P, 2.0)
    assert not found.requires_grad
    assert found.tolist() == pytest.approx([np.exp(0.5), np.exp(-1.0), 2.0, 1.0])
    assert torch.equal(importance_weights(logp_P, sampled_P, None), torch.ones(4))


@pytest.mark.parametrize("cap", [1.5, None])
def test_the_loss_weighs_each_token_by_its_ratio(small_run: Path, tmp_path: Path, cap: float | None) -> None:
    settings = {"importance_cap": cap, "beta1": 0.0, "offline_first_attempts": 0.3}
    trainer = make_trainer(small_run, tmp_path, small_config(stage2=settings), "stage2")
    (inputs,) = first_step(trainer)
    batch = inputs["batch"]
    trajectories = batch.trajectories
    torch.manual_seed(0)
    noise_NL = torch.randn(trajectories.logp_NL.shape) * (trajectories.attempt_NL > 0)
    shifted = replace(batch, trajectories=replace(trajectories, logp_NL=trajectories.logp_NL + noise_NL))
    trainer.gap.tolerated = 9.0
    found = trainer.compute_loss(trainer.model, {"batch": shifted})
    with torch.no_grad():
        logp_P = score(trainer.model, trajectories, 1.0).logp_P
    expected = 0.0
    at = 0
    for n, row in enumerate(shifted.trajectories.attempts):
        for t, ids in enumerate(row):
            for _ in ids:
                weight, advantage = batch.weight_NT[n, t].item(), batch.advantage_NT[n, t].item()
                ratio = np.exp(logp_P[at].item() - shifted.trajectories.logp_P[at].item())
                expected -= weight * advantage * logp_P[at].item() * (min(ratio, cap) if cap else 1.0)
                at += 1
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    sampled = batch.weight_NT[trajectories.sampled] > 0
    ratio_P = (logp_P - shifted.trajectories.logp_P).exp()[sampled]
    figures = trainer.figures.values
    assert figures["gap_mean"] == pytest.approx(
        noise_NL[trajectories.attempt_NL > 0][sampled].abs().mean().item(), rel=1e-3
    )
    if cap:
        assert figures["weight_mean"] == pytest.approx(ratio_P.clamp(max=cap).mean().item(), rel=1e-4)
        assert figures["weight_capped"] == pytest.approx((ratio_P >= cap).float().mean().item(), rel=1e-4)
    else:
        assert "weight_mean" not in figures


def test_an_engine_that_is_off_trains_nothing(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OffEngine, "by", 0.01)
    monkeypatch.setitem(ENGINES, "off", OffEngine)
    target = folders(small_run, tmp_path, "stage2")
    config, runtime = small_config(), RUNTIME.model_copy(update={"engine": "off"})
    with pytest.raises(
        UserError, match=r"at the first step, before any update engine off .* 0\.01 nats a token"
    ):
        train_stage("stage2", config, runtime, target)
    assert not target.output.exists() and not Path(f"{target.metrics}.json").exists()
    assert not list(target.work.rglob("checkpoint-*"))
    train_stage("stage2", small_config(training={"max_gap": 0.02}), runtime, target)


def test_an_engine_that_goes_wrong_later_leaves_the_last_checkpoint(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OffEngine, "by", 0.01)
    monkeypatch.setattr(OffEngine, "since", 3)
    monkeypatch.setitem(ENGINES, "off", OffEngine)
    # The first validation is the best so far, so its step is saved at once.
    config = small_config(training={"steps": 5, "select": "validation_accuracy"})
    runtime = RUNTIME.model_copy(update={"engine": "off"})
    target = folders(small_run, tmp_path, "stage2")
    with pytest.raises(UserError, match=r"after step 3 engine off"):
        train_stage("stage2", config, runtime, target)
    assert not target.output.exists()
    assert list(run_folder("stage2", config, runtime, target).glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("config", "name", "harmless", "harmful"),
    [
        (Gemma2Config, "final_logit_softcapping", None, 0.1),
        (CohereConfig, "logit_scale", 1.0, 0.5),
        (GraniteConfig, "logits_scaling", 1.0, 4.0),
    ],
)
def test_models_that_change_their_logits_behind_the_output_layer_are_noticed(
    config: Any, name: str, harmless: Any, harmful: Any, make_conversation: Any
) -> None:
    small = {
        "vocab_size": 20,
        "hidden_size": 16,
        "head_dim": 8,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        "initializer_range": 0.5,
    }

    def monitored(value: Any) -> GapMonitor:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(**small | {name: value})).eval()
        noise = np.random.default_rng(0).random((4, 2, 6))
        conversation = make_conversation(end_ids=[1])
        trajectories, _ = sample(model, conversation, [[2, 9, 8]], 2, samples=4, noise=noise)
        add_token_scoring(model)
        logp_P = score(model, trajectories, 1.0).logp_P
        monitor = GapMonitor(1e-4, None, "builtin", Accelerator(cpu=True))
        monitor.add(logp_P, trajectories.logp_P, torch.ones_like(logp_P, dtype=torch.bool))
        return monitor

    assert monitored(harmless).check(0)["gap_max"] < 1e-4
    with pytest.raises(UserError, match="leaves its logits alone behind the output layer"):
        monitored(harmful).check(0)


def test_dropout_is_off_wherever_it_is_named(small_run: Path, tmp_path: Path) -> None:
    """The scored network is the sampled one, and the trained model still names its own."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    for name in ("base", "untied"):
        file = run / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_dropout": 0.5}))
    config = small_config(training={"max_gap": 1e-5})
    train_stage("stage2", config, RUNTIME, folders(small_run, tmp_path, "without"))
    train_stage("stage2", config, RUNTIME, folders(run, tmp_path, "with"))
    one, two = (pd.read_csv(tmp_path / "metrics" / f"{name}_curve.csv") for name in ("without", "with"))
    pd.testing.assert_frame_equal(one, two)
    assert json.loads((tmp_path / "with/config.json").read_text())["attention_dropout"] == 0.5


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_small_steps_count_where_bf16_is_computed_in(small_run: Path, tmp_path: Path, lora: Any) -> None:
    """In bf16 weights nearly all of these updates would be rounded away."""
    stage = {"steps": 4, "learning_rate": 1e-6, "final_learning_rate": 1.0, "validate_every": 4}
    target = folders(small_run, tmp_path, "stage2")
    train_stage("stage2", small_config(stage2=stage, lora=lora, model=HALF), RUNTIME, target)
    after = load_file(next(target.output.glob("*.safetensors")))
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    summary = json.loads(Path(f"{target.metrics}.json").read_text())
    curve = pd.read_csv(target.metrics.with_name("stage2_curve.csv"))
    assert (curve.loc[0, ["kl_t1", "kl_t2"]] == 0.0).all()
    assert (curve["gap_mean"] < 0.02).all()
    if lora is None:
        before = load_file(small_run / "base/model.safetensors")
        moved = sum(int((before[name] != after[name]).sum()) for name in before)
        assert summary["weights_changed"] == moved / sum(weight.numel() for weight in before.values())
    assert summary["weights_changed"] > 0.9
