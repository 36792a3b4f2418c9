"""The quality gate and the table: metrics against the base's, the previous run's and the accepted ones."""

import json
from pathlib import Path

import pytest

from flows.dag import Stage, read_stages
from flows.results import (
    accept,
    check_max_drop,
    percent,
    read_accepted,
    read_last,
    read_metrics,
    read_warnings,
    regressions,
    result_name,
    save_last,
    table,
)
from score_core.errors import UserError
from tests.flows.small_pipeline import dvc, make_pipeline

BASE = {"n": 200, "accuracy_t1": 0.47, "accuracy_t2": 0.475, "delta": 0.005, "ci95": {}}
FINAL = {
    "n": 200,
    "accuracy_t1": 0.47,
    "accuracy_t2": 0.775,
    "delta": 0.305,
    "ci95": {"accuracy_t2": [0.712, 0.827]},
}


def changed(**values):
    return {**FINAL, **values}


def test_a_result_as_good_as_the_accepted_one_or_a_little_worse_passes():
    assert regressions(FINAL, FINAL, 0.0) == []
    assert regressions(changed(accuracy_t2=0.755), FINAL, 0.02) == []
    assert regressions(changed(accuracy_t2=0.9, delta=0.4), FINAL, 0.0) == []


def test_a_fall_of_either_measure_is_told_with_the_numbers():
    assert regressions(changed(accuracy_t2=0.75), FINAL, 0.02) == [
        "accuracy_t2 is 75.00 %, accepted 77.50 %: a drop of 2.50 points, allowed are 2"
    ]
    found = regressions(changed(accuracy_t2=0.6, delta=-0.1), FINAL, 0.05)
    assert [line.split()[0] for line in found] == ["accuracy_t2", "delta"]
    assert "-10.00 %" in found[1]


def test_attempt_one_alone_may_fall():
    assert regressions(changed(accuracy_t1=0.1), FINAL, 0.0) == []


def test_the_table_compares_with_base_last_and_accepted():
    rows = {row["metric"]: row for row in table(FINAL, BASE, changed(accuracy_t2=0.8), None)}
    row = rows["right at attempt 2"]
    assert row["this run"] == "77.50 %"
    assert row["95 % interval"] == "71.20 % to 82.70 %"
    assert row["base model"] == "47.50 % (+30.00)"
    assert row["previous run"] == "80.00 % (-2.50)"
    assert row["accepted run"] == "none"
    assert "wrong → right" not in rows, "not measured"


def test_what_training_said_of_collapse_is_found_by_its_stage(tmp_path):
    told = {"told": [{"said": "Since step 1: this."}, {"said": "Since step 9: that."}], "silent": None}
    for name, warnings in told.items():
        content = {"steps": 80} | ({"warnings": warnings} if warnings else {})
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    stages = [
        Stage(f"train_{name}", "", frozenset(), (Path("models") / name, Path(f"{name}.json")))
        for name in told
    ]
    assert read_warnings(stages, tmp_path) == {"train_told": ["Since step 1: this.", "Since step 9: that."]}


def test_results_of_different_names_are_kept_apart(tmp_path):
    (tmp_path / "params.yaml").write_text("profile: gsm8k\nsmoke: false\n")
    assert result_name(tmp_path) == "gsm8k"
    (tmp_path / "params.yaml").write_text("profile: gsm8k\nsmoke: true\n")
    assert result_name(tmp_path) == "gsm8k-smoke"
    save_last("gsm8k", FINAL, tmp_path)
    assert read_last("gsm8k", tmp_path) == FINAL
    assert read_last("gsm8k-smoke", tmp_path) is None
    assert read_accepted("gsm8k", tmp_path) is None
    (tmp_path / "params.yaml").write_text("smoke: [\n")
    with pytest.raises(UserError, match=r"params.yaml: cannot be read"):
        result_name(tmp_path)


def test_only_a_result_of_what_the_files_say_now_is_accepted(tmp_path):
    root = make_pipeline(tmp_path / "pipeline")
    (root / "dvc.yaml").write_text(
        "stages:\n  evaluate_final:\n    cmd: mkdir -p metrics && cp made.json metrics/final.json\n"
        "    deps: [made.json]\n    metrics: [metrics/final.json]\n"
    )
    (root / "params.yaml").write_text("profile: default\n")
    (root / "made.json").write_text(json.dumps(FINAL))
    with pytest.raises(UserError, match=r"metrics/final\.json: out of date: evaluate_final is stale"):
        accept(root)
    dvc(root, "repro", "-q")
    assert accept(root) == root / "accepted" / "default.json"
    assert read_accepted("default", root) == FINAL == read_metrics("final.json", read_stages(root), root)
    assert read_metrics("base.json", read_stages(root), root) is None
    (root / "made.json").write_text(json.dumps(BASE))
    with pytest.raises(UserError, match=r"changed: inputs made\.json"):
        accept(root)


def test_a_result_is_not_accepted_where_a_stage_before_it_is_stale(tmp_path):
    """As after a changed line of code: the inputs of the stage itself are still what they were."""
    root = make_pipeline(tmp_path / "pipeline")
    with (root / "dvc.yaml").open("a") as file:
        file.write(
            "  evaluate_final:\n    cmd: mkdir -p metrics && cp made.json metrics/final.json\n"
            "    deps: [made.json, c.txt]\n    metrics: [metrics/final.json]\n"
            "  report:\n    cmd: cp note.txt report.txt\n    deps: [note.txt]\n    outs: [report.txt]\n"
        )
    (root / "params.yaml").write_text("profile: default\nb:\n  word: one\n")
    (root / "made.json").write_text(json.dumps(FINAL))
    (root / "note.txt").touch()
    dvc(root, "repro", "-q")
    accept(root)
    (root / "note.txt").write_text("what comes after it does not count")
    accept(root)
    before = (root / "b.py").read_text()
    (root / "b.py").write_text(f"{before}# another line\n")
    with pytest.raises(UserError, match=r"out of date: b is stale \(changed: code b\.py\)\. Run"):
        accept(root)
    (root / "b.py").write_text(before)
    (root / "params.yaml").write_text("profile: default\nb:\n  word: two\n")
    with pytest.raises(UserError, match=r"b is stale \(changed: parameters b\.word one → two\)"):
        accept(root)


@pytest.mark.parametrize(
    "content", [{}, [], {"accuracy_t2": 0.7}, changed(delta=float("nan")), changed(delta="1")]
)
def test_an_accepted_file_without_its_numbers_does_not_switch_the_gate_off(tmp_path, content):
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "default.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"accepted/default\.json: (accuracy_t2|delta): expected a share"):
        read_accepted("default", tmp_path)


@pytest.mark.parametrize("drop", [float("nan"), float("inf"), -0.1, 2.0])
def test_an_allowed_drop_is_a_share(drop):
    check_max_drop(0.0)
    check_max_drop(1.0)
    with pytest.raises(UserError, match=r"max_drop: expected a share from 0 to 1"):
        check_max_drop(drop)


def test_percent_rounds_for_people():
    assert percent(0.77499) == "77.50 %"


@pytest.mark.parametrize("text", ["{", "[1]", "", "\xff"])
def test_an_accepted_result_that_is_no_json_is_one_line(tmp_path, text):
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "default.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"default\.json: cannot be read as metrics \(.+\); remove it"):
        read_accepted("default", tmp_path)
