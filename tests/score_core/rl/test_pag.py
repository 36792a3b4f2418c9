"""A toy run of PAG from end to end: training, its figures, its evaluation."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from score_core.evaluation.metrics import summarise
from score_core.problems import read_problems
from tests.small_run import RUNTIME, evaluate, folders, small_config, train_stage


def evaluated(folder: Path, run: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    config = small_config(evaluation={"verifies": True, "temperature": 1.0})
    table = evaluate(folder, read_problems(run / "data", "test"), config)
    return table, summarise(table)


def test_verdicts_follow_their_reward(small_run: Path, tmp_path: Path) -> None:
    run, sizes = small_run / "verifying", {"prompts_per_step": 16, "samples_per_prompt": 8}
    settings = {"steps": 9, "learning_rate": 0.003, "validate_every": 9, **sizes}
    target = folders(run, tmp_path, "pag")
    train_stage("pag", small_config(pag=settings), RUNTIME, target)
    curve = pd.read_csv(tmp_path / "metrics/pag_curve.csv")
    for name in ("kl", "entropy", "length", "truncated", "return", "reward"):
        assert {f"{name}_t1", f"{name}_v1", f"{name}_t2"} <= set(curve)
    assert list(curve.filter(like="changed")) == ["changed_t2"]
    # Nothing was said where nothing was revised; else two or three digits and an end token.
    assert (curve["length_t2"] / curve["revised_t2"]).between(3, 5).all()
    summary = json.loads((tmp_path / "metrics/pag.json").read_text())
    assert {"validation_accuracy_v1", "validation_revised_t2"} <= set(summary)
    before, after = (evaluated(folder, run)[1]["accuracy_v1"] for folder in (run / "base", target.output))
    assert after > before + 0.1


def test_the_final_answer_is_the_first_one_unless_it_was_called_wrong(small_run: Path) -> None:
    run = small_run / "verifying"
    table, metrics = evaluated(run / "base", run)
    accepted = table["extracted_v1"] != "wrong"
    assert 0.2 < accepted.mean() < 0.8
    for column in ("text", "extracted", "correct", "reward"):
        assert (table[f"{column}_t1"] == table[f"{column}_t2"])[accepted].all()
    assert ((table["tokens_t2"] == 0) == accepted).all()
    assert (table["text_t1"] != table["text_t2"]).any()
    assert metrics["revised_t2"] == pytest.approx(1 - accepted.mean())
    assert metrics["accuracy_t2"] == table["correct_t2"].mean()


def test_a_base_model_without_verdicts_is_told_of(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_stage("pag", small_config(pag={"steps": 1}), RUNTIME, folders(small_run, tmp_path, "pag"))
    assert "no verdict of the last validation was right" in caplog.text
    table, metrics = evaluated(tmp_path / "pag", small_run)
    assert metrics["unparsable_v1"] == 1 and metrics["accuracy_v1"] == metrics["revised_t2"] == 0
    assert (table["text_t1"] == table["text_t2"]).all()
