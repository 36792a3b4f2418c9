"""dvc.yaml: every path is an argument of the stage's command, and no stage writes into another's output."""

from pathlib import Path

import pytest

from tasks.runner.pipeline import outputs_of, read_pipeline, stages_of

ROOT = Path(__file__).resolve().parent.parent
STAGES = read_pipeline()


def outputs(stage: str) -> list[Path]:
    """All outputs of a stage."""
    return [path for kind in ("outs", "metrics", "plots") for path in outputs_of(stage, kind)]


def test_it_is_short():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 170


@pytest.mark.parametrize("stage", STAGES)
def test_what_git_keeps_does_not_switch_the_run_cache_off(stage):
    # DVC has no run cache for a stage with an output outside the cache that is no metric and no plot.
    assert all(isinstance(entry, str) for entry in STAGES[stage].get("outs", []))


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_command_is_told_to_read_and_write_is_what_dvc_tracks(stage):
    written, read = outputs(stage), [Path(path) for path in STAGES[stage]["deps"]]
    told = [Path(word) for word in STAGES[stage]["cmd"].split()[3:] if "/" in word]

    def begins(path: Path, word: Path) -> bool:
        """`metrics/train_stage1` is how the names of several files begin."""
        return path == word or (
            path.parent == word.parent and path.name.startswith((f"{word.name}.", f"{word.name}_"))
        )

    tracked = [*written, *read]
    assert [word for word in told if not any(begins(path, word) for path in tracked)] == []
    inputs = {path for path in read if path.parts[0] in ("models", "metrics", "generations")}
    assert [path for path in (*written, *inputs) if not any(begins(path, word) for word in told)] == []


def test_training_is_stale_where_a_judge_has_changed():
    for stage in stages_of("train"):
        assert "${watched.model}" in STAGES[stage]["deps"]


def test_no_stage_writes_into_anothers_output():
    # A card written into models/stage2 later would make DVC train Stage II again.
    written = [path for stage in STAGES for path in outputs(stage)]
    assert len(written) == len(set(written))
    assert not [(one, other) for one in written for other in written if one in other.parents]
