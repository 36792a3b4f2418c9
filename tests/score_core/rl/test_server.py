"""One process with a sampling server, also after its death; two processes are in test_distributed.py."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.models.handover import write_config
from score_core.problems import read_problems
from score_core.rl.training import Folders
from tests.small_run import RUNTIME, evaluate, folders, run_folder, small_config, train_stage
from tests.stand_in import StandIn

LORA = {"rank": 4, "alpha": 8}


@pytest.fixture
def stand_in(small_run: Path, tmp_path: Path) -> Iterator[StandIn]:
    write_config(small_run / "base", tmp_path / "served")
    with StandIn(tmp_path / "served") as server:
        yield server


def with_server(server: StandIn) -> Runtime:
    """The tests' settings, with the server's address."""
    return RUNTIME.model_copy(
        update={"launch": RUNTIME.launch.model_copy(update={"sampler": server.address})}
    )


def allowing(**sections: Any) -> Config:
    """A small configuration that lets a server sample."""
    training = {"sampling": "any", **sections.pop("training", {})}
    return small_config(training=training, evaluation={"sampling": "any"}, **sections)


def summary(target: Folders) -> dict[str, Any]:
    return json.loads(Path(f"{target.metrics}.json").read_text())


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_stage_trains_and_its_model_is_evaluated(
    small_run: Path, tmp_path: Path, stand_in: StandIn, lora: dict[str, int] | None
) -> None:
    target = folders(small_run, tmp_path, "stage2")
    stand_in.rank = LORA["rank"]
    # The reference gives some first attempts, so it is handed over, too.
    config = allowing(stage2={"offline_first_attempts": 0.3}, lora=lora)
    runtime = with_server(stand_in)
    train_stage("stage2", config, runtime, target)
    curve = pd.read_csv(f"{target.metrics}_curve.csv")
    assert len(curve) == 2 and (curve["gap_mean"] < 1e-4).all() and (curve["gap_max"] < 1e-3).all()
    assert summary(target)["engine"] == "vllm" and summary(target)["reproducible"] is False
    # In each of two steps the reference and the policy, and three validations; of the first and an adapter
    # the base alone, once.
    assert len(stand_in.loaded) == (2 * 2 + 3 if lora is None else 1 + 2 + 3)
    test = read_problems(small_run / "data", "test")
    found = evaluate(target.output, test, config, runtime)
    pd.testing.assert_frame_equal(found, evaluate(target.output, test, config, RUNTIME))
    assert len(stand_in.loaded) == (2 * 2 + 3 + 1 if lora is None else 1 + 2 + 3 + 2)


def test_what_has_to_be_reproducible_is_not_given_to_a_server(
    small_run: Path, tmp_path: Path, stand_in: StandIn
) -> None:
    runtime = with_server(stand_in).model_copy(update={"engine": "vllm"})
    said = r"training\.sampling: reproducible expects .* engine: vllm gives others"
    target = folders(small_run, tmp_path, "stage2")
    with pytest.raises(UserError, match=said):
        train_stage("stage2", small_config(), runtime, target)
    with pytest.raises(UserError, match=said.replace("training", "evaluation")):
        evaluate(small_run / "base", read_problems(small_run / "data", "test"), small_config(), runtime)
    assert not stand_in.loaded and not stand_in.asked
    # `auto` takes the built-in engine there.
    train_stage("stage2", small_config(), with_server(stand_in), target)
    assert summary(target)["engine"] == "builtin" and not stand_in.loaded


def test_after_the_servers_death_the_same_command_goes_on(
    small_run: Path, tmp_path: Path, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config, runtime = allowing(training={"steps": 4, "select": "validation_accuracy"}), with_server(stand_in)
    whole = folders(small_run, tmp_path, "whole")
    train_stage("stage2", config, runtime, whole)
    number = len(stand_in.asked)
    broken = replace(folders(small_run, tmp_path, "broken"), work=tmp_path / "work" / "other")
    stand_in.asked.clear()
    stand_in.lies, stand_in.after = {"dies"}, int(0.7 * number)
    with pytest.raises(UserError, match=r"does not answer .* last checkpoint"):
        train_stage("stage2", config, runtime, broken)
    assert not broken.output.exists() and not Path(f"{broken.metrics}.json").exists()
    assert list(run_folder("stage2", config, runtime, broken).glob("checkpoint-*"))
    stand_in.lies = set()
    stand_in.model = stand_in._made_up()  # it is started anew
    train_stage("stage2", config, runtime, broken)
    assert "resumed from step" in caplog.text
    one, other = (pd.read_csv(f"{target.metrics}_curve.csv") for target in (whole, broken))
    for table in (one, other):
        table.drop(columns=["gap_mean", "gap_max"], inplace=True)
    pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-6)


def test_a_run_that_goes_on_with_another_engine_says_so(
    small_run: Path, tmp_path: Path, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    config, target = allowing(training={"steps": 3, "select": "validation_accuracy"}), None
    target = folders(small_run, tmp_path, "stage2")
    stand_in.lies, stand_in.after = {"dies"}, 250
    with pytest.raises(UserError, match="does not answer"):
        train_stage("stage2", config, with_server(stand_in), target)
    assert list(run_folder("stage2", config, RUNTIME, target).glob("checkpoint-*"))
    train_stage("stage2", config, RUNTIME, target)
    assert "up to this checkpoint engine vllm has sampled, and from here on builtin does" in caplog.text
    assert summary(target)["engine"] == "builtin"
