"""What training says of its own speed, against what it did."""

import json
from pathlib import Path

import pandas as pd
import pytest

from score_core.rl import stopwatch
from score_core.rl.stopwatch import PARTS, Stopwatch
from tests.small_run import RUNTIME, folders, small_config, train_stage


def test_parts_are_counted_once_and_the_whole_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now[0])
    watch = Stopwatch()
    for part, seconds in (("sampling", 3.0), ("grading", 1.0), ("sampling", 2.0)):
        with watch.part(part):
            now[0] += seconds
        now[0] += 0.5
    assert watch.lap() == {"seconds": 7.5, "sampling": 5.0, "grading": 1.0, "learning": 0.0}
    now[0] += 4.0
    assert watch.lap() == {"seconds": 4.0, "sampling": 0.0, "grading": 0.0, "learning": 0.0}


def test_the_timing_log_has_every_step_and_honest_rates(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = folders(small_run, tmp_path, "stage2")
    train_stage("stage2", small_config(training={"steps": 3}), RUNTIME, target)
    lines = [json.loads(line) for line in (target.work / "timing.jsonl").read_text().splitlines()]
    curve = pd.read_csv(target.metrics.with_name("stage2_curve.csv"))
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line, length in zip(lines, curve["length_t1"] + curve["length_t2"], strict=True):
        assert all(line[part] > 0 for part in PARTS)
        assert sum(line[part] for part in PARTS) <= line["seconds"]
        assert line["trajectories_a_second"] * line["seconds"] == pytest.approx(8 * 4)
        assert line["tokens_a_second"] * line["seconds"] == pytest.approx(8 * 4 * length)
    assert "traj/s" in capsys.readouterr().err
    assert not {"seconds", *PARTS} & {*curve}, "results hold no times: equal runs write equal files"
    train_stage("stage2", small_config(training={"steps": 2}), RUNTIME, target)
    lines = [json.loads(line) for line in (target.work / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2], "of this run alone"
