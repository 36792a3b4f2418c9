"""The stage `download_data`, run in an empty folder."""

import argparse
import hashlib
import json
from pathlib import Path

import pytest

from score_core.answers.verifier import Verifier
from score_core.errors import UserError
from score_core.problems import read_problems
from tasks import download_data
from tests.configs import config, runtime

PREPARED = Path("data/prepared")
FIXTURE = Path(__file__).parents[2] / "data/fixtures/gsm8k"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def prepare(settings):
    """Runs the stage."""
    download_data.run(argparse.Namespace(output=PREPARED), settings, runtime())


def fixture_config(**data):
    columns = {"problem": "question"}
    return config(data={"source": "local", "path": str(FIXTURE), "columns": columns, **data})


def test_the_fixture_is_prepared_and_accounted_for():
    whole = fixture_config()
    prepare(whole)
    splits = {name: read_problems(PREPARED, name) for name in ("train", "validation", "test")}
    manifest = json.loads((PREPARED / "manifest.json").read_text())
    assert manifest["counts"] == {name: len(problems) for name, problems in splits.items()}
    assert manifest["quarantined"] == manifest["duplicates"] == manifest["dropped_answers"] == []
    assert manifest["seed"] == 5 and manifest["path"] == str(FIXTURE) and manifest["revision"] is None
    assert sorted(manifest["sha256"]) == ["test.parquet", "train.parquet", "validation.parquet"]
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((PREPARED / name).read_bytes()).hexdigest() == digest
    # The fixture's own worked solutions are right, and say what the prepared gold answer says.
    rows = [json.loads(line) for split in ("train", "test") for line in (FIXTURE / f"{split}.jsonl").open()]
    gold = {problem.problem: problem.references for problems in splits.values() for problem in problems}
    verifier = Verifier(whole.reward)
    assert len(rows) == len(gold) >= 130
    for row in rows:
        assert verifier.verify_all([row["answer"]], [gold[row["question"]]])[0].correct
        for step in row["answer"].split("<<")[1:]:
            expression, result = step.split(">>")[0].split("=")
            assert eval(expression) == int(result)


def test_running_twice_gives_the_same_bytes():
    prepare(fixture_config())
    first = {file.name: file.read_bytes() for file in PREPARED.iterdir()}
    prepare(fixture_config())
    assert first == {file.name: file.read_bytes() for file in PREPARED.iterdir()}


def test_a_smoke_sized_fixture_fills_its_splits():
    prepare(fixture_config(sizes={"train": 64, "validation": 16, "test": 16}))
    counts = json.loads((PREPARED / "manifest.json").read_text())["counts"]
    assert counts["train"] == 64 and counts["test"] == 16 and counts["validation"] >= 8


def test_a_mistake_leaves_the_earlier_output_and_nothing_else():
    prepare(fixture_config())
    before = {file.name: file.read_bytes() for file in PREPARED.iterdir()}
    with pytest.raises(UserError, match="column query is missing, found question, answer"):
        prepare(fixture_config(columns={"problem": "query"}))
    assert before == {file.name: file.read_bytes() for file in PREPARED.iterdir()}
    assert list(Path("data").iterdir()) == [PREPARED]


def test_the_fixture_s_splits_are_disjoint_by_words_too():
    texts = [
        {json.loads(line)["question"] for line in (FIXTURE / f"{split}.jsonl").open()}
        for split in ("train", "test")
    ]
    assert not texts[0] & texts[1]
