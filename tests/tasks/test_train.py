"""Where a training writes its metrics."""

import argparse
import json
from pathlib import Path

import pytest

from tasks import train
from tests.small_run import RUNTIME, lay_out, small_config


def test_a_dot_in_the_stem_of_the_metrics_is_part_of_it(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path, small_run)
    monkeypatch.chdir(tmp_path)
    base, data = Path("models/base"), Path("data/prepared")
    paths = {"output": Path("models/v1.2"), "metrics": Path("metrics/v1.2")}
    given = argparse.Namespace(name="stage2", start=base, reference=base, data=data, **paths)
    train.run(given, small_config(training={"steps": 1}), RUNTIME)
    written = {path.name for path in Path("metrics").iterdir()}
    assert written == {f"v1.2{end}" for end in (".json", ".jsonl", "_curve.csv", "_validation.csv")}
    (note,) = Path(".runs").rglob("finished.json")
    assert json.loads(note.read_text())["output"] == "metrics/v1.2.jsonl"
