"""Which checkpoints are believed, kept and removed, and what a run's name hangs on."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from score_core.checkpointing.checkpoints import Checkpoints, prune_runs
from score_core.checkpointing.fingerprint import fingerprint
from score_core.config.runtime import Checkpointing
from score_core.errors import UserError
from score_core.files import remove, tree_digests
from tests.configs import runtime
from tests.small_run import RUNTIME, small_config


def kept(**settings: Any) -> Checkpointing:
    """Which checkpoints are kept: what runtime.yaml says, with these instead."""
    return runtime(checkpoints=settings).checkpoints


def save(checkpoints: Checkpoints, step: int, best: int | None = None) -> None:
    """Writes a checkpoint as the Trainer would, and seals it."""
    checkpoints.clear()
    folder = checkpoints.unfinished / f"checkpoint-{step}"
    (folder / "part").mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    (folder / "part" / "weights").write_text(f"weights of {step}")
    (folder / "training_args.bin").write_text("a pickle")
    checkpoints.seal(step)


def test_the_newest_are_kept_and_the_best_beside_them(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept(keep=2))
    for step, best in ((3, 3), (5, 3), (20, 3), (100, 3)):
        save(checkpoints, step, best)
    assert checkpoints.steps() == [3, 20, 100]
    assert checkpoints.newest() == 100
    assert not list(tmp_path.rglob("training_args.bin"))
    save(checkpoints, 120, 120)
    assert checkpoints.steps() == [100, 120]


def test_what_was_not_sealed_is_not_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept())
    assert checkpoints.newest() is None
    save(checkpoints, 1)
    (checkpoints.unfinished / "checkpoint-2").mkdir(parents=True)
    assert checkpoints.newest() == 1
    checkpoints.clear()
    assert list(checkpoints.unfinished.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"part/weights": "0"}'])
def test_damaged_hashes_are_damage(tmp_path: Path, content: str) -> None:
    checkpoints = Checkpoints(tmp_path, kept())
    for step in (1, 2):
        save(checkpoints, step)
    (checkpoints.path(2) / "hashes.json").write_text(content)
    assert checkpoints.newest() == 1
    assert checkpoints.steps() == [1]


def test_a_state_of_another_version_is_damage_though_its_hashes_are_right(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept())
    save(checkpoints, 1)
    for content in ('{"best_global_step": null, "of_a_newer_version": 1}', "[]"):
        save(checkpoints, 2)
        folder = checkpoints.path(2)
        (folder / "trainer_state.json").write_text(content)
        hashes = tree_digests(folder)
        del hashes["hashes.json"]
        (folder / "hashes.json").write_text(json.dumps(hashes))
        assert checkpoints.newest() == 1
        assert checkpoints.steps() == [1]


def test_folders_of_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept())
    save(checkpoints, 3)
    for name in ("checkpoint-abc", "checkpoint-", "checkpoint-07", "checkpoint-1-old"):
        (tmp_path / name).mkdir()
    assert checkpoints.steps() == [3] and checkpoints.newest() == 3


def test_a_file_too_many_is_damage(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept())
    save(checkpoints, 1)
    (checkpoints.path(1) / "adapter_model.safetensors").write_text("from elsewhere")
    assert checkpoints.newest() is None


def test_a_checkpoint_is_worth_nothing_without_the_best_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept(keep=3))
    for step, best in ((1, None), (2, 2), (3, 2)):
        save(checkpoints, step, best)
    remove(checkpoints.path(2) / "part")
    with pytest.raises(UserError, match=r"checkpoint-2: damaged \(part/weights"):
        checkpoints.check(2)
    assert checkpoints.newest() == 1


def test_room_is_needed_for_all_that_will_be_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept(keep=4))
    checkpoints.check_space(1)
    with pytest.raises(UserError, match=r"are free .* 7e\+06 GB are needed: 4 checkpoints of 1e\+06 GB"):
        checkpoints.check_space(10**15)


def test_other_runs_are_removed_by_age_and_number(tmp_path: Path) -> None:
    ages = {"a" * 16: 1, "b" * 16: 2, "c" * 16: 3, "d" * 16: 99}
    for name, days in ages.items():
        (tmp_path / name / "checkpoint-1").mkdir(parents=True)
        then = time.time() - days * 86_400
        os.utime(tmp_path / name, (then, then))
    for other in ("log.jsonl", "manifest.json", "runs"):
        (tmp_path / other).mkdir()

    def left(current: str, **settings: Any) -> set[str]:
        prune_runs(tmp_path, current, kept(**settings))
        return {path.name[0] for path in tmp_path.iterdir() if len(path.name) == 16}

    assert left("d" * 16, keep_runs=9, keep_days=50) == {"a", "b", "c", "d"}
    assert left("e" * 16, keep_runs=9, keep_days=50) == {"a", "b", "c"}
    assert left("c" * 16, keep_runs=1, keep_days=50) == {"a", "c"}
    assert left("c" * 16, keep_runs=0) == {"c"}
    assert {path.name for path in tmp_path.iterdir()} == {"c" * 16, "log.jsonl", "manifest.json", "runs"}


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """A model and data, in two folders."""
    for name in ("base", "data"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(name)
    return [tmp_path / "base", tmp_path / "data"]


def test_the_fingerprint_hangs_on_what_the_result_hangs_on(inputs: list[Path]) -> None:
    def name(section: str = "stage1", threads: int = 1, said: str = "said", **sections: Any) -> str:
        one = RUNTIME.model_copy(update={"threads": threads})
        return fingerprint(small_config(**sections), one, section, inputs, [], said)

    plain = name()
    names = {
        "as it was": plain,
        "stage": name("stage2"),
        "rate": name(stage1={"learning_rate": 0.5}),
        "seed": name(seed=99),
        "lora": name(lora={"rank": 2}),
        "reward": name(reward={"extractor": "identity", "matcher": "exact_match"}),
        "length": name(conversation={"max_new_tokens": 4}),
        "threads": name(threads=2),
        "dialogue": name(said="said on another day"),
        "order": fingerprint(small_config(), RUNTIME, "stage1", inputs[::-1], [], "said"),
    }
    (inputs[0] / "deep" / "file").write_text("Base")
    names["model"] = name()
    (inputs[1] / "another").write_text("")
    names["data"] = name()
    assert len(set(names.values())) == len(names), names


def test_the_fingerprint_does_not_hang_on_how_a_run_is_watched(inputs: list[Path]) -> None:
    config = small_config()
    other = RUNTIME.model_copy(
        update={
            "log_level": "debug",
            "tracker": "tensorboard",
            "micro_batch_tokens": 8,
            "checkpoints": kept(keep=7),
        }
    )
    elsewhere = small_config(profile="another", stage2={"steps": 9}, report={"title": "Another"})
    plain = fingerprint(config, RUNTIME, "stage1", inputs, [], "said")
    assert fingerprint(config, other, "stage1", inputs, [], "said") == plain
    assert fingerprint(elsewhere, RUNTIME, "stage1", inputs, [], "said") == plain


def test_a_folder_that_is_two_inputs_is_read_once(
    inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of 70B take minutes; the name is that of two folders of the same content."""
    shutil.copytree(inputs[0], tmp_path / "copy")
    apart = fingerprint(small_config(), RUNTIME, "stage1", [*inputs, tmp_path / "copy"], [], "said")
    read = []
    once = "score_core.checkpointing.fingerprint.tree_digests"
    monkeypatch.setattr(once, lambda folder: read.append(folder) or tree_digests(folder))
    assert fingerprint(small_config(), RUNTIME, "stage1", [*inputs, inputs[0]], [], "said") == apart
    assert sorted(read) == sorted(inputs)


def test_the_fingerprint_hangs_on_the_code_it_is_given(inputs: list[Path], tmp_path: Path) -> None:
    code = [tmp_path / "rl", tmp_path / "seeding.py"]
    (tmp_path / "rl" / "deep").mkdir(parents=True)
    for name in ("rl/deep/objective.py", "seeding.py", "elsewhere.py"):
        (tmp_path / name).write_text("as it was")
    plain = fingerprint(small_config(), RUNTIME, "stage1", inputs, code, "said")
    for name, counts in (("rl/deep/objective.py", True), ("seeding.py", True), ("elsewhere.py", False)):
        (tmp_path / name).write_text("changed")
        assert (fingerprint(small_config(), RUNTIME, "stage1", inputs, code, "said") != plain) == counts, name
        (tmp_path / name).write_text("as it was")
    (tmp_path / "rl" / "objective.pyc").write_text("compiled")
    assert fingerprint(small_config(), RUNTIME, "stage1", inputs, code, "said") == plain
    (tmp_path / "rl" / "new.py").write_text("")
    assert fingerprint(small_config(), RUNTIME, "stage1", inputs, code, "said") != plain
