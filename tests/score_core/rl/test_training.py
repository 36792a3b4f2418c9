"""Whole stages, from folder to folder, on two-digit sums."""

import gc
import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState
from transformers.utils.logging import enable_progress_bar

from score_core.errors import UserError
from score_core.files import replacing
from score_core.models.folders import load_tokenizer
from score_core.models.memory import BatchSizes
from score_core.problems import Problem, read_problems, write_problems
from score_core.rl import training
from score_core.rl.arguments import batch_sizes, micro_batches
from score_core.rl.trainer import PolicyTrainer
from score_core.rl.training import Best
from score_core.rollout.conversation import Conversation
from tests.small_run import (
    RUNTIME,
    evaluate,
    folders,
    in_micro_batches,
    run_folder,
    small_config,
    train_stage,
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(iter(folder.glob("*.safetensors"))))


def curve(work: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(work / "metrics" / f"{name}_curve.csv")


def run_stage2(
    run: Path, work: Path, name: str = "stage2", start: Path | None = None, **settings: Any
) -> Path:
    target = folders(run, work, name, start)
    train_stage("stage2", small_config(stage2=settings), RUNTIME, target)
    return target.output


def test_stage_writes_a_model_its_metrics_and_nothing_else(small_run: Path, tmp_path: Path) -> None:
    train_stage("stage1", small_config(), RUNTIME, folders(small_run, tmp_path, "stage1"))
    names = {path.name for path in (tmp_path / "stage1").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert (
        load_tokenizer(tmp_path / "stage1").chat_template == load_tokenizer(small_run / "base").chat_template
    )
    written = {path.name for path in (tmp_path / "metrics").iterdir()}
    assert written == {"stage1.json", "stage1.jsonl", "stage1_curve.csv", "stage1_validation.csv"}
    lines = [json.loads(line) for line in (tmp_path / "metrics/stage1.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("validation", 0),
        ("step", 1),
        ("validation", 1),
        ("step", 2),
        ("validation", 2),
    ]
    assert curve(tmp_path, "stage1")["step"].tolist() == [1, 2]


def test_one_bar_shows_training_and_saving_draws_none(
    small_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    enable_progress_bar()  # of transformers, which an earlier test's training has switched off
    run_stage2(small_run, tmp_path, steps=2)
    lines = re.split(r"[\r\n]+", capfd.readouterr().err)
    drawn = {re.split(r":\s+\d+%", line)[0] for line in lines if "%|" in line}
    assert drawn == {"Loading weights", "stage2"}


def test_training_changes_the_weights_and_hangs_on_the_rewards(small_run: Path, tmp_path: Path) -> None:
    trained = weights(run_stage2(small_run, tmp_path, beta1=0.0))
    base = weights(small_run / "base")
    assert trained.keys() == base.keys()
    assert any(not torch.equal(trained[name], base[name]) for name in base)
    # Where every trajectory earns the same, nothing is learned: there is no other force in the loss.
    flat = weights(run_stage2(small_run, tmp_path, "flat", beta1=0.0, temperature=1e-4, alpha=0.0))
    assert all(torch.equal(flat[name], base[name]) for name in base)


def test_equal_runs_write_equal_bits(small_run: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        run_stage2(small_run, tmp_path, name)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
    for suffix in ("_curve.csv", "_validation.csv", ".json", ".jsonl"):
        first, second = (tmp_path / "metrics" / f"{name}{suffix}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), suffix


def test_the_schedule_counts_optimiser_steps(small_run: Path, tmp_path: Path) -> None:
    config = small_config(
        stage2={"steps": 6, "warmup_steps": 2, "learning_rate": 0.01, "final_learning_rate": 0.2}
    )
    rates = []
    for name, rows in (("whole", 512), ("cut", 8)):
        train_stage("stage2", config, in_micro_batches(rows), folders(small_run, tmp_path, name))
        rates.append(curve(tmp_path, name)["learning_rate"].tolist())
    decay = [0.01 * (0.2 + 0.8 * (1 - left / 4)) for left in range(4)]
    expected = [0.01 / 3, 0.02 / 3, *decay]
    assert rates[0] == pytest.approx(expected)
    assert rates[1] == pytest.approx(expected)


def test_micro_batches_change_nothing_but_rounding(small_run: Path, tmp_path: Path) -> None:
    config = small_config()
    for name, rows in (("whole", 512), ("cut", 8)):
        train_stage("stage2", config, in_micro_batches(rows), folders(small_run, tmp_path, name))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for name, expected in whole.items():
        torch.testing.assert_close(cut[name], expected, rtol=1e-3, atol=2e-5)


def test_micro_batches_are_as_few_as_are_sure_to_fit() -> None:
    stage = small_config(stage1={"prompts_per_step": 12, "samples_per_prompt": 4}).stage("stage1")
    counts = {tokens: micro_batches(stage, tokens, longest=10) for tokens in (9999, 480, 479, 240, 169, 9)}
    assert counts == {9999: 1, 480: 1, 479: 2, 240: 2, 169: 3, 9: 48}
    assert micro_batches(stage, 240, longest=10, processes=2) == 1


def test_the_reference_of_stage_2_is_the_base_model(small_run: Path, tmp_path: Path) -> None:
    """From another model than the base, the KL of the first step is that model's to the base."""
    run_stage2(small_run, tmp_path, "start", learning_rate=0.02, steps=3)
    run_stage2(small_run, tmp_path, "from_base", steps=1)
    run_stage2(small_run, tmp_path, "from_start", start=tmp_path / "start", steps=1)
    assert curve(tmp_path, "from_base")[["kl_t1", "kl_t2"]].to_numpy().tolist() == [[0.0, 0.0]]
    assert (curve(tmp_path, "from_start")[["kl_t1", "kl_t2"]].to_numpy() > 0.01).all()


def test_first_attempts_may_be_given_where_no_kl_needs_the_reference(small_run: Path, tmp_path: Path) -> None:
    run_stage2(small_run, tmp_path, "start", learning_rate=0.3)
    settings = {"steps": 1, "beta1": 0.0, "offline_first_attempts": 1.0}
    rewards = []
    for name, start in (("own", small_run / "base"), ("other", tmp_path / "start")):
        run_stage2(small_run, tmp_path, name, start=start, **settings)
        rewards.append(curve(tmp_path, name)[["reward_t1", "reward_t2"]].iloc[0].tolist())
    (own_first, own_second), (other_first, other_second) = rewards
    assert own_first == other_first and own_second != other_second, "the ruined model answers second only"


def test_lora_trains_an_adapter_over_an_untouched_base(small_run: Path, tmp_path: Path) -> None:
    config = small_config(lora={"rank": 4, "alpha": 8}, stage1={"learning_rate": 0.01})
    before = (small_run / "base/model.safetensors").read_bytes()
    train_stage("stage1", config, RUNTIME, folders(small_run, tmp_path, "stage1"))
    train_stage("stage2", config, RUNTIME, folders(small_run, tmp_path, "stage2", tmp_path / "stage1"))
    assert (small_run / "base/model.safetensors").read_bytes() == before
    for name in ("stage1", "stage2"):
        assert (tmp_path / name / "adapter_model.safetensors").exists()
        assert not (tmp_path / name / "model.safetensors").exists()
    assert any(
        not torch.equal(tensor, weights(tmp_path / "stage1")[name])
        for name, tensor in weights(tmp_path / "stage2").items()
    )
    assert curve(tmp_path, "stage1")["kl_t1"][0] == 0.0
    # Stage II starts at Stage I's adapter and is measured against the base model without any.
    assert curve(tmp_path, "stage2")["kl_t2"][0] > 0
    table = evaluate(tmp_path / "stage2", read_problems(small_run / "data", "test")[:8], config, RUNTIME)
    assert len(table) == 8


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_three_attempts(small_run: Path, tmp_path: Path, lora: dict[str, int] | None) -> None:
    config = small_config(
        lora=lora,
        stage1={"attempts": 3, "learning_rate": 0.01},
        stage2={"attempts": 3},
        evaluation={"attempts": 3},
    )
    train_stage("stage1", config, RUNTIME, folders(small_run, tmp_path, "stage1"))
    # The last phase starts at, and is held to, the model of the phase before: there the KL is 0.
    kl = curve(tmp_path, "stage1")[["kl_t1", "kl_t2", "kl_t3"]]
    assert kl.iloc[0].tolist() == [0.0, 0.0, 0.0]
    assert curve(tmp_path, "stage1")["return_t2"].tolist() == [0.0, 0.0]
    train_stage("stage2", config, RUNTIME, folders(small_run, tmp_path, "stage2", tmp_path / "stage1"))
    second = curve(tmp_path, "stage2").iloc[0]
    for later in (2, 3):
        expected = second[f"reward_t{later}"] + 3 * (
            second[f"reward_t{later}"] - second[f"reward_t{later - 1}"]
        )
        assert second[f"return_t{later}"] == pytest.approx(expected, abs=1e-6)
    assert second["kl_t1"] > 0, "Stage II is measured against the base model, not against Stage I's"
    validation = pd.read_csv(tmp_path / "metrics/stage2_validation.csv")
    assert {"accuracy_t3", "delta_t3"} <= set(validation)
    table = evaluate(tmp_path / "stage2", read_problems(small_run / "data", "test")[:8], config, RUNTIME)
    assert "correct_t3" in table


def test_nothing_of_a_phase_is_held_when_the_next_one_loads_its_models(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[ReferenceType[PolicyTrainer]] = []
    alive: list[int] = []
    make, load = PolicyTrainer.__init__, training.load_policy

    def made(self: PolicyTrainer, *given: Any, **named: Any) -> None:
        make(self, *given, **named)
        trainers.append(ref(self))

    def loaded(*given: Any) -> Any:
        alive.append(sum(one() is not None for one in trainers))
        return load(*given)

    monkeypatch.setattr(PolicyTrainer, "__init__", made)
    monkeypatch.setattr(training, "load_policy", loaded)
    gc.collect()
    gc.disable()  # which of itself may come in time, or not
    try:
        target = folders(small_run, tmp_path, "stasc")
        train_stage("stasc", small_config(stasc={"iterations": 3, "steps": 1}), RUNTIME, target)
    finally:
        gc.enable()
    assert len(trainers) == 3 and alive == [0, 0, 0]


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_sizes_leave_room_for_a_reference_that_is_a_model_of_its_own(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, int] | None
) -> None:
    """That of whole models is counted always; under adapters there is one from the second phase on."""
    counted = []

    def noting(*given: Any, starts: int, **named: Any) -> BatchSizes:
        counted.append(starts)
        return batch_sizes(*given, starts=starts, **named)

    monkeypatch.setattr("score_core.rl.training.batch_sizes", noting)
    config = small_config(lora=lora, stage1={"attempts": 3, "steps": 1})
    train_stage("stage1", config, RUNTIME, folders(small_run, tmp_path, "stage1"))
    assert counted == [0, int(lora is not None)]


def test_select_keeps_the_best_validation(small_run: Path, tmp_path: Path) -> None:
    # A learning rate that ruins the model, once it is reached: the best weights are those of the first steps.
    settings = {"steps": 5, "learning_rate": 0.01, "final_learning_rate": 1.0, "warmup_steps": 4}
    kept = run_stage2(small_run, tmp_path, select="validation_accuracy", validation_problems=64, **settings)
    summary = json.loads((tmp_path / "metrics/stage2.json").read_text())
    validation = pd.read_csv(tmp_path / "metrics/stage2_validation.csv").set_index("step")
    best = validation.loc[1:, "accuracy_t2"]
    assert summary["selected_step"] == best.idxmax() < 5
    assert 0.2 < best.max() < 1, "else a model that is always right or wrong would answer alike when sampled"
    assert summary["validation_accuracy_t2"] == best.max()
    problems = read_problems(small_run / "data", "validation")[:64]
    table = evaluate(kept, problems, small_config(), RUNTIME)
    assert table["correct_t2"].mean() == best.max()


def test_select_by_reward_takes_all_steps_since_the_last_validation() -> None:
    best = Best("training_reward", attempt=2)
    state, kept = TrainerState(log_history=[{"eval_delta": 0.0}]), []
    # Rewards of both attempts at the three steps before each validation; the mean is best at the second.
    for number, rewards in enumerate([(0.1, 0.1, 0.9), (0.5, 0.6, 0.4), (0.9, 0.0, 0.5)]):
        for reward in rewards:
            state.log_history.append({"loss": 0.0, "reward_t1": reward - 0.1, "reward_t2": 0.1, "kl_t1": 9.0})
        state.global_step = 3 * (number + 1)
        state.log_history.append({"eval_delta": 0.0, "eval_reward_t1": 9.0})
        best.on_log(None, state, TrainerControl(), logs=state.log_history[-1])
        kept.append(state.best_global_step)
    assert kept == [3, 6, 6]


def test_the_saved_configuration_is_the_base_models(small_run: Path, tmp_path: Path) -> None:
    saved = json.loads((run_stage2(small_run, tmp_path) / "config.json").read_text())
    assert saved == json.loads((small_run / "base" / "config.json").read_text())


@pytest.mark.parametrize(
    ("select", "kept"), [("validation_accuracy", 2), ("training_reward", 3), ("last", None)]
)
def test_select_compares_the_last_attempt_s_accuracy_or_all_rewards(select: str, kept: int | None) -> None:
    best, state, control = Best(select, attempt=2), TrainerState(), None
    # A step's rewards and the validation after it, of attempts 1 and 2; the first and the last of equals.
    figures = [(0.0, 0.0, 1.0, 1.0), (0.1, 0.2, 0.9, 0.1), (0.2, 0.0, 0.1, 0.5), (0.1, 0.4, 0.2, 0.5)]
    figures.append((0.4, 0.1, 0.0, 0.4))
    for step, (first, second, *accuracies) in enumerate(figures):
        state.global_step, control = step, TrainerControl()
        if step > 0:
            state.log_history.append({"loss": 0.0, "reward_t1": first, "reward_t2": second})
        accuracy = {f"eval_accuracy_t{t}": value for t, value in enumerate(accuracies, start=1)}
        state.log_history.append({"eval_delta": 0.0, **accuracy})
        best.on_log(None, state, control, state.log_history[-1])
        assert control.should_save == (step > 0 and state.best_global_step == step)
    assert state.best_global_step == kept


def test_select_keeps_the_highest_training_reward(small_run: Path, tmp_path: Path) -> None:
    run_stage2(
        small_run, tmp_path, select="training_reward", steps=5, learning_rate=0.1, final_learning_rate=1.0
    )
    rewards = curve(tmp_path, "stage2").set_index("step")[["reward_t1", "reward_t2"]].sum(axis=1)
    assert rewards.idxmax() != rewards.idxmin()
    summary = json.loads((tmp_path / "metrics/stage2.json").read_text())
    assert summary["selected_step"] == rewards.idxmax()


def test_adaptive_beta2_moves_towards_its_target(small_run: Path, tmp_path: Path) -> None:
    adaptive = {"target_kl": 10.0, "horizon": 2.0}  # far more than there is: beta2 must fall
    stage = {"steps": 4, "beta2": 1.0, "adaptive_beta2": adaptive}
    train_stage("stage1", small_config(stage1=stage), RUNTIME, folders(small_run, tmp_path, "stage1"))
    assert curve(tmp_path, "stage1")["beta2"].tolist() == pytest.approx([1.0, 0.9, 0.81, 0.729])


def test_a_stage_1_that_has_not_taken_off_says_so(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train_stage("stage1", small_config(), RUNTIME, folders(small_run, tmp_path, "stage1"))
    assert "has not taken off" in caplog.text
    assert json.loads((tmp_path / "metrics/stage1.json").read_text())["took_off"] is False


def test_stage_1_learns_to_correct(small_run: Path, tmp_path: Path) -> None:
    """The learning test: sampled from its own attempts alone, the second becomes better than the first."""
    stage = {
        "steps": 60,
        "prompts_per_step": 32,
        "samples_per_prompt": 8,
        "warmup_steps": 5,
        "validate_every": 60,
        "validation_problems": 64,
    }
    train_stage("stage1", small_config(stage1=stage), RUNTIME, folders(small_run, tmp_path, "stage1"))
    validation = pd.read_csv(tmp_path / "metrics/stage1_validation.csv").set_index("step")
    assert abs(validation.loc[0, "delta"]) <= 0.02
    assert validation.loc[60, "delta"] >= 0.05
    assert json.loads((tmp_path / "metrics/stage1.json").read_text())["took_off"] is True


def test_an_output_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), replacing(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text("{")
        raise RuntimeError("killed half way")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_problem_that_is_too_long_is_refused_before_weights_are_loaded(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    monkeypatch.setattr("score_core.rl.training.load_policy", lambda *_: pytest.fail("was loaded"))
    shutil.copytree(small_run / "data", tmp_path / "data")
    long = Problem("long", "12+34" * 9, ("46",))
    write_problems(tmp_path / "data", split, [long, *read_problems(small_run / "data", split)])
    target = replace(folders(small_run, tmp_path, "stage1"), data=tmp_path / "data")
    with pytest.raises(UserError, match=r"problem long \('12\+34.*: its prompt has \d+ tokens; expected at"):
        train_stage("stage1", small_config(), RUNTIME, target)
    assert not target.output.exists()


def test_what_is_said_on_another_day_starts_afresh(small_run: Path, tmp_path: Path) -> None:
    """The same files say something else, e.g. by a library's new way of writing them."""
    target = folders(small_run, tmp_path, "stage1")
    plain = run_folder("stage1", small_config(), RUNTIME, target)
    with pytest.MonkeyPatch.context() as patch:
        write = Conversation._render
        patch.setattr(Conversation, "_render", lambda self, messages: write(self, messages) + "!")
        assert run_folder("stage1", small_config(), RUNTIME, target) != plain
