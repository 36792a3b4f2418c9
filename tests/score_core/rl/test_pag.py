"""A toy run of PAG from end to end: training, its figures, its evaluation."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from score_core.evaluation.metrics import summarise
from score_core.problems import read_problems
from tests.small_run import RUNTIME, evaluate, folders, small_config, train_stage

VERIFIES: dict[str, Any] = {"evaluation": {"verifies": True}}


def evaluated(folder: Path, run: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    table = evaluate(folder, read_problems(run / "data", "test"), small_config(**VERIFIES))
    return table, summarise(table)


def test_verdicts_become_better_than_chance(small_run: Path, tmp_path: Path) -> None:
    run = small_run / "verifying"
    settings = {
        "steps": 30,
        "prompts_per_step": 16,
        "samples_per_prompt": 8,
        "learning_rate": 0.003,
        "validate_every": 30,
    }
    target = folders(run, tmp_path, "pag")
    train_stage("pag", small_config(pag=settings), RUNTIME, target)
    curve = pd.read_csv(tmp_path / "metrics/pag_curve.csv")
    first, last = (curve[part].mean() for part in ("accuracy_v1", "revised_t2")), curve.iloc[-10:].mean()
    assert all(0.3 < share < 0.9 for share in first)
    assert last["accuracy_v1"] > 0.7 and last["accuracy_v1"] > curve["accuracy_v1"].iloc[:3].mean() + 0.1
    for name in ("kl", "entropy", "length", "truncated", "return", "reward"):
        assert {f"{name}_t1", f"{name}_v1", f"{name}_t2"} <= set(curve)
    assert list(curve.filter(like="changed")) == ["changed_t2"]
    # Nothing was said where nothing was revised; two digits and an end token are most of what is.
    assert (curve["length_t2"] / curve["revised_t2"]).between(3, 5).all()
    summary = json.loads((tmp_path / "metrics/pag.json").read_text())
    table, metrics = evaluated(target.output, run)
    assert metrics["accuracy_v1"] > 0.7
    assert {"validation_accuracy_v1", "validation_revised_t2"} <= set(summary)
    accepted = table[table["extracted_v1"] != "wrong"]
    assert 0 < len(accepted) < len(table)
    for column in ("text", "extracted", "correct", "reward"):
        assert (accepted[f"{column}_t1"] == accepted[f"{column}_t2"]).all()
    assert (accepted["tokens_t2"] == 0).all() and not accepted["truncated_t2"].any()
    assert metrics["revised_t2"] == pytest.approx(1 - len(accepted) / len(table))


def test_a_base_model_without_verdicts_is_told_of(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_stage("pag", small_config(pag={"steps": 1}), RUNTIME, folders(small_run, tmp_path, "pag"))
    assert "no verdict of the last validation was right" in caplog.text
    table, metrics = evaluated(tmp_path / "pag", small_run)
    assert metrics["unparsable_v1"] == 1 and metrics["accuracy_v1"] == metrics["revised_t2"] == 0
    assert (table["text_t1"] == table["text_t2"]).all()
