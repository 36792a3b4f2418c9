"""What the report refuses, and whom it names."""

import json

import pandas as pd
import pytest

from score_core.errors import UserError
from score_core.report.inputs import read_inputs
from tests.run_files import MODELS, files, make_rows, write_evaluation, write_run

MADE_BY = {
    "metrics/base.json": "evaluate_base",
    "metrics/stage1.json": "evaluate_stage1",
    "metrics/final.json": "evaluate_final",
    "generations/base.parquet": "evaluate_base",
    "generations/final.parquet": "evaluate_final",
    "metrics/train_stage1.json": "train_stage1",
    "metrics/train_stage1_curve.csv": "train_stage1",
    "metrics/train_stage2_validation.csv": "train_stage2",
}


@pytest.fixture
def root(tmp_path):
    write_run(tmp_path, problems=20)
    return tmp_path


@pytest.mark.parametrize(("name", "stage"), MADE_BY.items())
def test_missing_file_names_the_stage_that_makes_it(root, name, stage):
    (root / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: not found.*dvc repro {stage}\b"):
        read_inputs(*files(root))


@pytest.mark.parametrize(("name", "stage"), MADE_BY.items())
@pytest.mark.parametrize("content", [b"", b'{"n": 3', b"\x00\xff\xfe,\n1,2"])
def test_damaged_file_names_the_stage_that_makes_it(root, name, stage, content):
    (root / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_inputs(*files(root))
    assert name in str(error.value)
    assert f"dvc repro {stage}" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_metric_is_named(root):
    path = root / "metrics" / "final.json"
    metrics = json.loads(path.read_text())
    del metrics["changed_t2"]
    path.write_text(json.dumps(metrics))
    with pytest.raises(
        UserError, match=r"final\.json: changed_t2: expected [\d.]+, .* found None; .*evaluate_final"
    ):
        read_inputs(*files(root))


@pytest.mark.parametrize("told", ["much", [3], [{"said": None}]])
def test_warnings_without_words_are_named(root, told):
    path = root / "metrics" / "train_stage2.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": told}))
    with pytest.raises(
        UserError, match=r"train_stage2\.json: warnings: expected warnings.*repro train_stage2"
    ):
        read_inputs(*files(root))


def test_missing_interval_is_named(root):
    path = root / "metrics" / "base.json"
    metrics = json.loads(path.read_text())
    metrics["ci95"]["delta"] = [0.1]
    path.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"ci95\.delta: expected \[[-\d.]+, [-\d.]+\], .* found \[0\.1\]"):
        read_inputs(*files(root))


def test_missing_column_is_named(root):
    path = root / "generations" / "stage1.parquet"
    pd.read_parquet(path).drop(columns="text_t2").to_parquet(path)
    with pytest.raises(UserError, match=r"stage1\.parquet: text_t2: expected a column, found nothing"):
        read_inputs(*files(root))


def test_text_in_a_curve_is_named(root):
    path = root / "metrics" / "train_stage1_curve.csv"
    pd.read_csv(path).assign(kl_t1="much").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"curve\.csv: kl_t1: expected a column of numbers, found str"):
        read_inputs(*files(root))


def test_curve_without_steps_is_refused(root):
    path = root / "metrics" / "train_stage1_curve.csv"
    pd.read_csv(path).drop(columns="step").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"curve\.csv: step: expected a column of numbers, found nothing"):
        read_inputs(*files(root))


@pytest.mark.parametrize("content", ["[]", '"text"', '{"attempts": 2, "ci95": 3}', '{"attempts": "2"}'])
def test_other_json_is_refused(root, content):
    (root / "metrics" / "final.json").write_text(content)
    with pytest.raises(UserError, match=r"final\.json: .*dvc repro evaluate_final"):
        read_inputs(*files(root))


def test_metrics_of_another_evaluation_are_refused(root):
    rows = make_rows("someone else", (0.2, 0.5, 0.1), 20, 2)
    pd.DataFrame(rows).to_parquet(root / "generations" / "final.parquet")
    with pytest.raises(UserError, match="not of one evaluation"):
        read_inputs(*files(root))


def test_models_on_different_problems_are_not_compared(root):
    write_evaluation(root, "final", make_rows("final", MODELS["final"], 19, 2))
    with pytest.raises(UserError, match="2 attempts at 19 problems, not those of"):
        read_inputs(*files(root))
    write_evaluation(root, "final", make_rows("final", MODELS["final"], 20, 3))
    with pytest.raises(UserError, match="3 attempts at 20 problems, not those of"):
        read_inputs(*files(root))


def test_order_of_rows_does_not_matter(root):
    path = root / "generations" / "final.parquet"
    before = read_inputs(*files(root)).final.generations
    pd.read_parquet(path).sample(frac=1, random_state=1).to_parquet(path)
    pd.testing.assert_frame_equal(read_inputs(*files(root)).final.generations, before)


def test_two_of_one_name_are_refused(root):
    evaluated, trained = files(root)
    with pytest.raises(UserError, match="model base: given more than once"):
        read_inputs([*evaluated, evaluated[0]], trained)
    with pytest.raises(UserError, match="stage stage1: given more than once"):
        read_inputs(evaluated, [*trained, trained[0]])
