"""Parameters: what is refused and with which words, and what toy size keeps."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from score_core.config.parsing import load_config, load_runtime, smoke_sized
from score_core.config.schema import HubData, LocalData, TinyModel
from score_core.errors import UserError
from tests.configs import config


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"stage2": {"alhpa": 3}}, "stage2.alhpa: unknown key; did you mean alpha?"),
        ({"sede": 1}, "sede: unknown key; did you mean seed?"),
        ({"data": {"source": "local", "path": "x", "revision": "main"}}, "data.revision: unknown key"),
        ({"data": {"path": "x"}}, "data: "),
        ({"stage1": {"steps": 0}}, "stage1.steps: input should be greater than"),
        ({"stage1": {"steps": "many"}}, "found 'many'"),
        ({"stage1": {"steps": 1.5}}, "stage1.steps: "),
        ({"stage1": {"learning_rate": float("nan")}}, "stage1.learning_rate: "),
        ({"stage1": {"learning_rate": float("inf")}}, "stage1.learning_rate: "),
        ({"stage2": {"alpha": 10, "gamma": 0.2}}, "alpha * gamma is 2, more than 1"),
        ({"stage2": {"top_p": 0.9}}, "stage2.top_p: refused: training samples from the whole distribution"),
        ({"stage1": {"top_k": 50}}, "stage1.top_k: refused"),
        ({"stage1": {"samples_per_prompt": 1}}, "samples_per_prompt is 1; sample at least 2"),
        ({"stage1": {"baseline": "leave_one_out_given_first"}}, "would cancel it"),
        ({"stage1": {"kl_estimator": "k1"}}, "zero expected gradient; use k1_in_reward"),
        ({"stage1": {"kl_estimator": "k4"}}, "stage1.kl_estimator: "),
        (
            {"stage1": {"beta2": 0, "adaptive_beta2": {"target_kl": 1}}},
            "beta2 is 0; give it a positive start",
        ),
        (
            {"stage1": {"adaptive_beta2": {"target_kl": 1}, "kl_estimator": "k1_in_reward"}},
            "would change rewards inside a step",
        ),
        ({"evaluation": {"top_p": 0.9}}, "does nothing in greedy decoding"),
        ({"evaluation": {"attempts": 11}}, "evaluation.attempts: "),
        ({"model": {"source": "addition"}}, "model.source: addition only knows sums"),
        ({"model": {"source": "hub", "path": "a/b", "trust_remote_code": True}}, "is never run"),
    ],
)
def test_mistakes_are_one_line_with_key_and_remedy(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        config(**sections)
    message = str(caught.value)
    assert words in message
    assert message.startswith("test: ") and "\n" not in message


def test_one_sample_goes_with_a_baseline_that_needs_no_others() -> None:
    single = {"samples_per_prompt": 1, "baseline": "moving_average", "baseline_later": "none"}
    assert config(stage1=single).stage1.samples_per_prompt == 1


def test_paying_for_failure_must_be_asked_for() -> None:
    stage2 = {"alpha": 10, "gamma": 0.2, "allow_paid_failure": True}
    assert config(stage2=stage2).stage2.gamma == 0.2


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().stage1.steps = 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not found; run from the checkout"),
        ("a: [", "not valid YAML at line 1"),
        ("", "expected `key: value` lines"),
        ("- a", "expected `key: value` lines"),
        ("threads: 0", "threads: input should be greater than"),
        ("thread: 1", "unknown key; did you mean threads?"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "runtime.yaml"
    if text is not None:
        path.write_text(text)
    for load in (load_runtime, load_config):
        with pytest.raises(UserError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        if load is load_runtime:
            assert words in str(caught.value)


def test_toy_size_changes_how_much_and_not_what() -> None:
    full = config(
        data={
            "source": "hub",
            "path": "owner/set",
            "fixture": "data/fixtures/gsm8k",
            "columns": {"problem": "question"},
            "sizes": {"train": 9000},
        },
        model={"source": "hub", "path": "owner/model", "family": "qwen3"},
        stage1={"beta2": 0.7, "kl_estimator": "k3_in_loss", "attempts": 3},
        stage2={"alpha": 4, "samples_per_prompt": 16},
        lora={"rank": 4, "alpha": 8},
    )
    toy = smoke_sized(full)
    assert isinstance(full.data, HubData) and isinstance(toy.data, LocalData)
    assert (toy.data.path, toy.data.columns) == (full.data.fixture, full.data.columns)
    assert isinstance(toy.model, TinyModel) and toy.model.family == "qwen3"
    assert toy.stage1.steps == 2 < full.stage1.steps
    for kept in ("beta2", "kl_estimator", "attempts", "baseline", "beta1", "learning_rate"):
        assert getattr(toy.stage1, kept) == getattr(full.stage1, kept)
    assert (toy.stage2.alpha, toy.lora, toy.reward) == (4, full.lora, full.reward)


def test_toy_size_of_a_hub_set_needs_a_fixture() -> None:
    full = config(data={"source": "hub", "path": "owner/set", "columns": {"problem": "question"}})
    with pytest.raises(UserError, match=r"data\.fixture: .* name a local folder"):
        smoke_sized(full)


@pytest.mark.skipif(find_spec("wandb") is not None, reason="W&B is installed here")
def test_a_tracker_that_is_not_installed_is_named_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "runtime.yaml"
    path.write_text("tracker: wandb")
    with pytest.raises(UserError, match="tracker: wandb is not installed; `pip install wandb`, or set none"):
        load_runtime(path)
