"""A run that was stopped and goes on ends as if it had never been stopped, bit for bit."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from score_core.checkpointing import resumable_trainer
from score_core.checkpointing.checkpoints import Checkpoints
from score_core.errors import Stopped, UserError
from score_core.rl.training import Folders, train_phase
from score_core.rollout.conversation import load_conversation
from tests.configs import runtime
from tests.small_run import (
    SELF_JUDGE,
    algorithm,
    digits_are_verdicts,
    folders,
    in_micro_batches,
    run_folder,
    small_config,
    train_stage,
)

# Saves as often as it may, so that there is something to go on from and something to damage.
OFTEN = runtime(threads=1, checkpoints={"every_seconds": 0.001})
STEPS = 8


@contextmanager
def told_to_stop(log: Callable[[], Path | None], step: int) -> Iterator[None]:
    """Expects the block to be stopped by SIGTERM, sent to this very process once `log` tells of a step."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            path = log()
            if path is not None and path.exists() and f'"step": {step},' in path.read_text():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(Stopped):
            yield
    finally:
        over.set()
        watcher.join()


def written(work: Path, name: str) -> dict[str, bytes]:
    """Every file of the model `name` and of its metrics."""
    files = [*(work / name).iterdir(), *(work / "metrics").glob(f"{name}*")]
    return {path.name.replace(name, "run"): path.read_bytes() for path in files}


def same(work: Path) -> None:
    """The outputs `whole` and `resumed` are equal, and nothing else is left behind."""
    whole, resumed = written(work, "whole"), written(work, "resumed")
    assert whole.keys() == resumed.keys() and len(whole) > 6
    assert [name for name in whole if whole[name] != resumed[name]] == []
    left = {path.name for path in (work / "work/resumed").iterdir()}
    (run,) = left - {"log.jsonl", "timing.jsonl"}
    # What the outputs can be written from again: the end, the best, and earlier phases.
    checkpoints = sorted(path.name for path in (work / "work/resumed" / run).glob("*-*"))
    summary = json.loads((work / "metrics/resumed.json").read_text())
    assert {*checkpoints} == {f"checkpoint-{summary[step]}" for step in ("steps", "selected_step")}
    assert not (work / "work/resumed" / run / "unfinished").exists()
    assert not [path for path in work.rglob("*") if path.suffix in (".tmp", ".probe")]


CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "adaptive beta2, moving averages": (
        "stage1",
        {
            "stage1": {
                "adaptive_beta2": {"target_kl": 0.01, "horizon": 2.0},
                "baseline": "moving_average",
                "baseline_later": "moving_average",
            }
        },
        512,
    ),
    "an adapter in micro-batches": (
        "stage2",
        {"lora": {"rank": 4, "alpha": 8}, "stage2": {"offline_first_attempts": 0.5}},
        8,
    ),
    # Ruinous on purpose: what is selected lies before the interruption.
    "the best of validation": (
        "stage2",
        {
            "stage2": {
                "select": "validation_accuracy",
                "learning_rate": 0.3,
                "warmup_steps": 3,
                "validation_problems": 64,
            }
        },
        512,
    ),
    "the best of an adapter": (
        "stage1",
        {"lora": {"rank": 4, "alpha": 8}, "stage1": {"select": "training_reward", "validate_every": 2}},
        512,
    ),
    "single-turn RL": ("single_turn", {"single_turn": {"baseline": "group_standardised"}}, 512),
    "a policy that judges itself": (
        "sr_r1",
        {"sr_r1": {"baseline": "group_standardised"}, "reward": {"self_judge": SELF_JUDGE}},
        512,
    ),
    "pairs of an adapter": (
        "pair_sft",
        {"lora": {"rank": 4, "alpha": 8}, "pair_sft": {"keep_right": True}},
        512,
    ),
    # In the second, which samples the model of the first, and has it correct the base model's answers.
    "iterations": (
        "stasc",
        {"stasc": {"iterations": 2, "filter": "non_decreasing", "offline_first_attempts": 1.0}},
        512,
    ),
    "verdicts, and revisions of some": ("pag", {"pag": {"baseline_later": "moving_average"}}, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(
    small_run: Path, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    section, settings, rows = CASES[case]
    stage = {"steps": STEPS, "learning_rate": 0.01, **settings[section]}
    config = small_config(**{**settings, section: stage})
    settled = in_micro_batches(rows, OFTEN)

    def run(name: str) -> None:
        made = small_run / "verifying" if section == "pag" else small_run
        target = folders(made, tmp_path, name)
        train_stage(section, config, settled, target)

    with digits_are_verdicts():
        run("whole")
        with told_to_stop(lambda: tmp_path / "work/resumed/log.jsonl", 3):
            run("resumed")
        assert not (tmp_path / "resumed").exists() and not list((tmp_path / "metrics").glob("resumed*"))
        with caplog.at_level(logging.INFO):
            run("resumed")
    assert re.search(r"resumed from step [3-8]\b", caplog.text)
    same(tmp_path)


def test_three_attempts_go_on_in_the_phase_they_were_in(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = {"attempts": 3, "steps": 4, "learning_rate": 0.01}
    config = small_config(stage1=stage, lora={"rank": 4, "alpha": 8})
    train_stage("stage1", config, OFTEN, folders(small_run, tmp_path, "whole"))
    target = folders(small_run, tmp_path, "resumed")
    first = lambda: next(target.work.glob("*/phase1/log.jsonl"), None)  # noqa: E731
    for log in (first, lambda: target.work / "log.jsonl"):
        with told_to_stop(log, 2):
            train_stage("stage1", config, OFTEN, target)
    with caplog.at_level(logging.INFO):
        train_stage("stage1", config, OFTEN, target)
    assert re.findall(r"resumed from step (\d)", caplog.text)[0] == "4", "the first phase was over"
    assert "resumed from step 2" in caplog.text or "resumed from step 3" in caplog.text
    same(tmp_path)


def test_optimiser_schedule_and_random_states_are_those_of_an_uninterrupted_run(
    small_run: Path, tmp_path: Path
) -> None:
    config = small_config(stage2={"steps": STEPS}, lora={"rank": 4, "alpha": 8})

    def run(name: str) -> Path:
        target = folders(small_run, tmp_path, name)
        checkpoints = Checkpoints(tmp_path / f"{name}-checkpoints", OFTEN.checkpoints)
        phase = algorithm("stage2", config)
        conversation = load_conversation(small_run / "base", config.conversation, phase.attempts)
        train_phase(config, OFTEN, target, conversation, "stage2", phase, checkpoints)
        return tmp_path / f"{name}-checkpoints" / f"checkpoint-{STEPS}"

    whole = run("whole")
    with told_to_stop(lambda: tmp_path / "work/resumed/log.jsonl", 3):
        run("resumed")
    resumed = run("resumed")
    names = {path.name for path in whole.iterdir()}
    assert {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} < names
    assert "training_args.bin" not in names
    for name in names:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name


def test_other_parameters_start_afresh_and_the_old_ones_go_on(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow, fast = (small_config(stage2={"steps": STEPS, "learning_rate": rate}) for rate in (1e-3, 1e-2))

    def run(config: Any, name: str) -> None:
        train_stage("stage2", config, OFTEN, folders(small_run, tmp_path, name))

    run(fast, "whole")
    with told_to_stop(lambda: tmp_path / "work/resumed/log.jsonl", 3):
        run(slow, "resumed")
    with caplog.at_level(logging.INFO):
        run(fast, "resumed")
    assert "resumed from" not in caplog.text
    assert written(tmp_path, "whole") == written(tmp_path, "resumed")
    with caplog.at_level(logging.INFO):
        run(slow, "resumed")
    assert "resumed from step" in caplog.text
    assert written(tmp_path, "whole") != written(tmp_path, "resumed")


@pytest.mark.parametrize("damage", ["changed", "cut off", "missing", "not sealed"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    small_run: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(stage2={"steps": STEPS})

    def run(name: str) -> None:
        train_stage("stage2", config, OFTEN, folders(small_run, tmp_path, name))

    run("whole")
    for step in (2, 4):
        with told_to_stop(lambda: tmp_path / "work/resumed/log.jsonl", step):
            run("resumed")
    found = sorted((tmp_path / "work/resumed").glob("*/checkpoint-*"))
    assert len(found) == 2
    before, newest = found
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    if damage == "changed":
        weights.write_bytes(content)
    elif damage == "cut off":
        os.truncate(newest / "optimizer.pt", 1000)
    elif damage == "missing":
        weights.unlink()
    else:
        (newest / "hashes.json").unlink()
    with caplog.at_level(logging.INFO):
        run("resumed")
    assert f"{newest}: damaged" in caplog.text
    assert f"resumed from step {before.name.split('-')[1]}" in caplog.text
    same(tmp_path)


# ----------------------------------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a disk of its own can be mounted by root only")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def on_disk(run: Path, work: Path, disk: Path, name: str) -> Folders:
    """Outputs in `work` as ever, and checkpoints on `disk`."""
    target = folders(run, work, name)
    return replace(target, work=disk / name)


def fill(disk: Path, leave: int) -> Path:
    """Fills a disk but for some bytes."""
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(disk).free - leave))
    return filler


def test_a_folder_that_cannot_be_written_is_found_before_training(small_run: Path, tmp_path: Path) -> None:
    config, target = small_config(), folders(small_run, tmp_path, "stage2")
    way = run_folder("stage2", config, OFTEN, target)
    way.parent.mkdir(parents=True)
    way.write_text("in the way")
    with pytest.raises(UserError, match=f"{way}/unfinished: cannot write here"):
        train_stage("stage2", config, OFTEN, target)
    assert not target.output.exists()


@pytest.mark.parametrize("leave", [0, 200_000, 1_000_000])
def test_too_little_space_is_said_before_training(
    small_run: Path, tmp_path: Path, small_disk: Path, leave: int
) -> None:
    config = small_config(stage2={"steps": STEPS})
    filler = fill(small_disk, leave)
    target = on_disk(small_run, tmp_path, small_disk, "stage2")
    with pytest.raises(UserError, match=r"free some") as raised:
        train_stage("stage2", config, OFTEN, target)
    assert "\n" not in str(raised.value)
    assert not target.output.exists()
    assert (
        not (target.work / "log.jsonl").exists()
        or '"step": 1,' not in target.work.joinpath("log.jsonl").read_text()
    )
    filler.unlink()
    train_stage("stage2", config, OFTEN, target)


def test_a_full_disk_leaves_the_last_checkpoint_and_no_output(
    small_run: Path, tmp_path: Path, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(stage2={"steps": 60})
    train_stage("stage2", config, OFTEN, folders(small_run, tmp_path, "whole"))
    target = on_disk(small_run, tmp_path, small_disk, "resumed")

    def fill_when_saved() -> None:
        deadline = time.monotonic() + 120
        while not list(target.work.glob("*/checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.001)
        fill(small_disk, 50_000)

    filling = threading.Thread(target=fill_when_saved)
    filling.start()
    with pytest.raises(UserError, match=r"checkpoint of step (\d+) is intact; free some space") as raised:
        train_stage("stage2", config, OFTEN, target)
    filling.join()
    assert not target.output.exists() and not list((tmp_path / "metrics").glob("resumed*"))
    step = re.search(r"of step (\d+) is intact", str(raised.value))[1]
    (small_disk / "filler").unlink()
    with caplog.at_level(logging.INFO):
        train_stage("stage2", config, OFTEN, target)
    assert f"resumed from step {step}" in caplog.text
    assert written(tmp_path, "whole") == written(tmp_path, "resumed")


def test_a_disk_that_is_too_full_for_the_log_is_said_too(
    small_run: Path, tmp_path: Path, small_disk: Path
) -> None:
    config = small_config(stage2={"steps": 60})
    target = on_disk(small_run, tmp_path, small_disk, "stage2")
    over = threading.Event()

    def fill_when_training() -> None:
        log = target.work / "log.jsonl"
        while not over.wait(0.001) and not (log.exists() and '"step": 1,' in log.read_text()):
            pass
        fill(small_disk, 0)

    filling = threading.Thread(target=fill_when_training)
    filling.start()
    try:
        with pytest.raises(
            UserError, match=r"the log of step \d+ cannot be written .*no checkpoint was written before"
        ):
            train_stage("stage2", config, runtime(threads=1, checkpoints={"every_seconds": 1e9}), target)
    finally:
        over.set()
        filling.join()
    assert not target.output.exists()


# ------------------------------------------------------------------------------------ how often, how long


def simulate(
    monkeypatch: pytest.MonkeyPatch, step: float, save: Callable[[int], float], **settings: Any
) -> Any:
    """The moments at which training would save in 1,000 steps, and the share of its time that it takes."""
    clock = [0.0]
    monkeypatch.setattr(resumable_trainer.time, "monotonic", lambda: clock[0])
    trainer = SimpleNamespace(any_process=lambda *flags: flags, stop=SimpleNamespace(asked=False))
    settled = runtime(checkpoints=settings).checkpoints
    saving = resumable_trainer._Saving(trainer, Checkpoints(Path("nowhere"), settled))
    clock[0] += save(0)
    saving.saved(0.0)
    moments, saved, state = [], 0.0, SimpleNamespace(is_world_process_zero=True, global_step=0)
    for number in range(1, 1001):
        clock[0] += step
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        saving.on_step_end(SimpleNamespace(max_steps=10**9), state, control)
        if control.should_save:
            began = clock[0]
            clock[0] += save(len(moments))
            saving.saved(began)
            saved += clock[0] - began
            moments.append(number)
        if number % 10 == 0:
            clock[0] += 50 * step  # validation
    return moments, saved / clock[0]


@pytest.mark.parametrize("step", [1.0, 8.0, 100.0])
@pytest.mark.parametrize("save", [0.001, 1.0, 7.0, 60.0])
def test_saving_takes_a_tenth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch, step: float, save: float
) -> None:
    moments, share = simulate(monkeypatch, step, lambda _: save, every_seconds=5)
    assert share <= 0.1 + 1e-9
    assert moments and moments[0] <= 1 + max(5, 9 * save) / step


def test_one_save_during_which_the_process_was_suspended_changes_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hour = 3600.0
    moments, _ = simulate(monkeypatch, 1.0, lambda number: hour if number == 9 else 0.5, every_seconds=5)
    gaps = [after - before for before, after in pairwise([*moments, 1001])]
    assert max(gaps) <= 6
