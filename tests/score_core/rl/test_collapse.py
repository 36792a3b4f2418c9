"""The monitor of collapse, on logs written down by hand and on a run of training."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerState

from score_core.rl.collapse import CollapseMonitor
from tests.small_run import RUNTIME, folders, small_config, train_stage

SOUND = {"accuracy_t1": 0.4, "accuracy_t2": 0.6, "changed_t2": 0.3, "entropy_t1": 0.3, "entropy_t2": 0.1}
COPIES = {**SOUND, "accuracy_t2": 0.4, "changed_t2": 0.03}


def told(
    steps: int, figures: Callable[[int], dict[str, float]], samples_start: bool = False
) -> list[tuple[str, int, int, int | None]]:
    """What the monitor has told after so many steps: sign, attempt, since and until when."""
    monitor = CollapseMonitor("stage2", samples_start)
    for step in range(1, steps + 1):
        monitor.take({"loss": 0.0, "step": step, **figures(step)})
    return [(one["sign"], one["attempt"], one["since"], one["until"]) for one in monitor.warnings]


def test_a_sound_run_is_left_in_peace() -> None:
    assert told(200, lambda step: SOUND) == []


def test_copying_from_the_start_is_told_when_a_sound_run_would_have_taken_off() -> None:
    assert told(39, lambda step: COPIES) == []
    assert told(40, lambda step: COPIES) == [("copying", 2, 1, None)]
    assert told(200, lambda step: COPIES if step < 30 else SOUND) == []


def test_a_late_take_off_ends_the_warning() -> None:
    # The mean of steps 54 to 63, three of which change, is the first above the upper bound.
    rises = told(200, lambda step: COPIES if step <= 60 else {**SOUND, "changed_t2": 0.4})
    assert rises == [("copying", 2, 1, 63)]


def test_an_attempt_that_stops_changing_is_told_soon_and_with_the_step() -> None:
    # Steps 41 on change 5 % of the wrong; the first window below 10 % has one step of before.
    assert told(54, lambda step: SOUND if step <= 40 else COPIES) == [("stopped changing", 2, 40, None)]
    assert told(53, lambda step: SOUND if step <= 40 else COPIES) == []


def test_a_level_that_trembles_at_a_bound_is_told_once() -> None:
    def trembling(step: int) -> dict[str, float]:
        # Ten steps at 8 % of the wrong, ten at 14 %: across the lower bound, and never above the upper.
        return {**SOUND, "changed_t2": 0.6 * (0.08 if step // 20 % 2 else 0.14)} if step > 40 else SOUND

    assert len(told(400, trembling)) == 1


def test_nothing_is_copied_where_nearly_all_is_right() -> None:
    right = {"accuracy_t1": 0.97, "accuracy_t2": 0.98, "changed_t2": 0.0, "entropy_t1": 0.1}
    assert told(200, lambda step: {**SOUND, **right}) == []


def test_a_first_attempt_that_is_spoiled_for_the_second_one() -> None:
    spoiled = {**SOUND, "accuracy_t1": 0.05, "accuracy_t2": 0.8, "changed_t2": 0.9}
    (found,) = told(80, lambda step: SOUND if step <= 40 else spoiled)
    assert found[:2] == ("spoiling", 1) and 35 <= found[2] <= 41 and found[3] is None


def test_both_attempts_getting_worse_is_not_done_on_purpose() -> None:
    worse = {**SOUND, "accuracy_t1": 0.05, "accuracy_t2": 0.06, "changed_t2": 0.5}
    assert told(80, lambda step: SOUND if step <= 40 else worse) == []


def test_lost_entropy_is_a_sign_only_where_answers_are_wrong() -> None:
    sure = {**SOUND, "entropy_t1": 0.001}
    assert [found[:2] for found in told(80, lambda step: SOUND if step <= 40 else sure)] == [
        ("no entropy", 1)
    ]
    never = {**SOUND, "entropy_t2": 0.001}
    assert told(80, lambda step: {**never, "entropy_t2": 0.001 if step <= 40 else 1e-6}) == []
    right = {**sure, "accuracy_t1": 0.95, "accuracy_t2": 0.95}
    assert told(80, lambda step: SOUND if step <= 40 else right) == []


def test_of_one_attempt_only_the_entropy_is_watched() -> None:
    one = {"accuracy_t1": 0.4, "entropy_t1": 0.3}
    gone = told(80, lambda step: one | {"entropy_t1": 0.3 if step <= 40 else 0.0})
    assert [found[:2] for found in gone] == [("no entropy", 1)]


def test_where_another_model_is_sampled_validations_are_watched() -> None:
    monitor = CollapseMonitor("star", samples_start=True)
    for step in range(0, 81, 10):
        monitor.take({"loss": 0.0, "step": step, **COPIES})  # says nothing about the policy
        validation = {f"eval_{name}": value for name, value in SOUND.items() if "entropy" not in name}
        monitor.take({"eval_delta": 0.2, "step": step, **validation})
    assert monitor.warnings == []
    for step in range(90, 151, 10):
        monitor.take({"eval_delta": 0.0, "step": step, "eval_changed_t2": 0.0, "eval_accuracy_t1": 0.4,
                      "eval_accuracy_t2": 0.4})  # fmt: skip
    assert [(one["sign"], one["since"]) for one in monitor.warnings] == [("stopped changing", 90)]


def test_a_resumed_run_takes_up_what_was_logged_and_tells_it_once(caplog: pytest.LogCaptureFixture) -> None:
    history = [{"loss": 0.0, "step": step, **COPIES} for step in range(1, 51)]
    monitor, nothing = CollapseMonitor("stage2", samples_start=False), object()
    with caplog.at_level(logging.INFO):
        monitor.on_train_begin(nothing, TrainerState(log_history=history), nothing)
        assert caplog.text == "" and monitor.shown == "copying since step 1"
        for step in range(51, 61):
            history = [*history, {"loss": 0.0, "step": step, **SOUND}]
            monitor.on_log(nothing, TrainerState(log_history=history), nothing)
    assert caplog.text.count("no longer copying, since step") == 1
    assert monitor.shown == ""


def test_training_says_so_on_the_screen_in_its_log_and_in_its_metrics(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that cannot move goes on copying, as its base model does where little is left to chance."""
    still: dict[str, Any] = {"steps": 42, "learning_rate": 1e-12, "validate_every": 42, "temperature": 0.3}
    target = folders(small_run, tmp_path, "stage2")
    with caplog.at_level(logging.WARNING):
        train_stage("stage2", small_config(training=still), RUNTIME, target)
    said = "Since step 1: attempt 2 only copies: of wrong ones it changes"
    assert f"stage2: {said}" in caplog.text
    assert "COPYING SINCE STEP 1, reward" in capsys.readouterr().err
    (warning,) = json.loads((tmp_path / "metrics/stage2.json").read_text())["warnings"]
    assert warning["said"].startswith(said)
    assert (warning["sign"], warning["attempt"], warning["since"]) == ("copying", 2, 1)
