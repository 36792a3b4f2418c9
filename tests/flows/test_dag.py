"""Order, reasons and the plan: what DVC's own command line says of a small pipeline, and of ours."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.dag import NEVER, find_output, plan, read_stages, reason, select
from score_core.errors import UserError
from tests.flows.small_pipeline import dvc, make_pipeline, set_word

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The small pipeline after a run."""
    root = make_pipeline(tmp_path_factory.mktemp("done"))
    dvc(root, "repro", "-q")
    return root


@pytest.fixture
def pipeline(done, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(done, tmp_path / "pipeline", symlinks=True))


def verdicts(root, **options):
    return {step.stage: step.verdict for step in plan(read_stages(root), root=root, **options)}


def test_stages_come_in_an_order_in_which_they_can_run(done):
    stages = read_stages(done)
    assert [stage.name for stage in stages] == ["a", "b", "c"]
    assert [stage.needs for stage in stages] == [set(), {"a"}, {"b"}]
    assert stages[1].command == "python b.py"
    assert find_output(stages, "*.txt") == (Path("a.txt"), stages[0])
    assert find_output(stages, "c.txt") == (Path("c.txt"), stages[2])
    assert find_output(stages, "*.html") is None


def test_of_our_pipeline_nothing_is_left_out_and_needs_come_first():
    written = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages = read_stages()
    assert {stage.name: stage.command for stage in stages} == {n: s["cmd"] for n, s in written.items()}
    assert find_output(stages, "final.json")[0] == Path("metrics/final.json")
    for at, stage in enumerate(stages):
        assert stage.needs <= {before.name for before in stages[:at]}


def test_a_named_stage_brings_what_it_needs(done):
    stages = read_stages(done)
    assert [stage.name for stage in select(stages, ["b"])] == ["a", "b"]
    assert select(stages, None) == select(stages, []) == stages
    with pytest.raises(UserError, match=r"stages: there is no 'train_stage3'; did you mean train_stage"):
        select(read_stages(), ["train_stage3"])


def test_nothing_is_stale_after_a_run(done):
    assert [reason(name, done) for name in "abc"] == [None, None, None]
    assert verdicts(done) == {"a": "cached", "b": "cached", "c": "cached"}


def test_a_changed_parameter_is_named_and_its_descendants_may_run(pipeline):
    set_word(pipeline, "two")
    assert reason("b", pipeline) == "changed: parameters b.word one → two"
    assert set(json.loads(dvc(pipeline, "status", "--json"))) == {"b"}, "DVC alone says nothing of c"
    steps = plan(read_stages(pipeline), root=pipeline)
    assert [step.verdict for step in steps] == ["cached", "stale", "may run"]
    assert steps[2].why == "if outputs of b change"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda root: (root / "b.py").write_text("open('b.txt', 'w')\n"), "changed: code b.py"),
        (lambda root: (root / "rooms" / "two.py").touch(), "changed: code rooms"),
        (lambda root: (root / "b.txt").unlink(), "missing: b.txt"),
        (lambda root: (root / "a.txt").write_text("new"), "changed: inputs a.txt"),
        (
            lambda root: (root / "dvc.yaml").write_text(
                (root / "dvc.yaml").read_text().replace("python b.py", "python  b.py")
            ),
            "changed: command",
        ),
    ],
)
def test_the_reason_says_what_changed(pipeline, change, why):
    change(pipeline)
    assert reason("b", pipeline) == why


def test_an_output_edited_by_hand_is_told_apart_from_a_changed_input(pipeline):
    (pipeline / "b.txt").chmod(0o644)
    (pipeline / "b.txt").write_text("by hand")
    assert reason("b", pipeline) == "changed: outputs edited outside DVC: b.txt"


def test_only_a_stage_that_another_dvc_runs_is_waited_for(pipeline, caplog, monkeypatch):
    sleep = time.sleep

    def end_the_other(seconds):
        (pipeline / "runs").unlink(missing_ok=True)
        sleep(0.2)

    text = (pipeline / "dvc.yaml").read_text()
    (pipeline / "dvc.yaml").write_text(
        text.replace("python b.py", "touch runs; while [ -e runs ]; do sleep 0.1; done")
    )
    command = [sys.executable, "-m", "dvc", "repro", "-q", "b"]
    with subprocess.Popen(command, cwd=pipeline) as other:
        while not (pipeline / "runs").exists():
            assert other.poll() is None
            time.sleep(0.1)
        monkeypatch.setattr("flows.dag.time.sleep", end_the_other)
        assert reason("a", pipeline) is None
        assert (pipeline / "runs").exists() and not caplog.records, "nothing of it is held"
        reason("b", pipeline)
        (line,) = [record.message for record in caplog.records]
        assert re.search(rf"waiting for another run of DVC: .*b\.txt' is busy.*PID {other.pid}\)", line)


def test_in_a_fresh_clone_all_but_the_lock_file_is_missing(done, tmp_path):
    clone = make_pipeline(tmp_path / "clone")
    shutil.copy(done / "dvc.lock", clone)
    assert reason("b", clone) == "missing: a.txt, b.txt"
    set_word(clone, "two")
    assert reason("b", clone) == "changed: parameters b.word one → two; missing: a.txt, b.txt"


def test_before_the_first_run_and_when_forced(tmp_path, done):
    fresh = make_pipeline(tmp_path / "fresh")
    assert reason("a", fresh) == NEVER
    assert set(verdicts(fresh).values()) == {"stale"}
    assert verdicts(done, force=frozenset("b")) == {"a": "cached", "b": "stale", "c": "may run"}
