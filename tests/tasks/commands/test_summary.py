"""The table that a run ends with."""

import json

import pytest

from score_core.errors import UserError
from tasks.commands import summary


def metrics(first: float, second: float, attempts: int = 2) -> dict:
    content = {"n": 2000, "attempts": attempts, "accuracy_t1": first, "accuracy_t2": second}
    content |= {"delta": second - first, "delta_i_to_c": 0.5, "delta_c_to_i": 0.001}
    content["ci95"] = {key: [content[key] - 0.01, content[key] + 0.01] for key in content if "_" in key}
    content["ci95"]["delta"] = [second - first - 0.02, second - first + 0.02]
    return content


def test_percent_with_intervals_one_line_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    for name, accuracies in {"base": (0.49, 0.49), "stage1": (0.45, 0.99), "final": (0.85, 0.999)}.items():
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps(metrics(*accuracies)))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "index.html").touch()
    summary.print_summary()
    lines = capsys.readouterr().out.splitlines()
    final = next(line for line in lines if line.startswith("after Stage II "))
    assert final.split("  ")[-5:] == [
        "85.0 [84.0, 86.0]",
        "99.9 [98.9, 100.9]",
        "+14.9 [+12.9, +16.9]",
        "50.0 [49.0, 51.0]",
        "0.1 [-0.9, 1.1]",
    ]
    assert any(line.startswith("base model") and "+0.0 [-2.0, +2.0]" in line for line in lines)
    assert lines[-1] == f"Report: {tmp_path / 'reports' / 'index.html'}"


def test_columns_line_up():
    table = summary.table({name: metrics(0.1, 0.2) for name in ("base", "stage1", "another")}).splitlines()
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize("found", [None, "{", "{}"])
def test_missing_metrics_name_the_stage_that_makes_them(tmp_path, monkeypatch, found):
    monkeypatch.chdir(tmp_path)
    if found:
        (tmp_path / "metrics").mkdir()
        (tmp_path / "metrics" / "base.json").write_text(found)
    with pytest.raises(UserError, match="dvc repro evaluate_"):
        summary.print_summary()
