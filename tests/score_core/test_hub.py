"""Fetching through the hub's real client, from a hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score_core.embedded import tiny_model
from tests.local_hub import COMMIT, local_hub

CARD = """\
---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
---
"""

# What a card may say of a file's columns: the answers there are the numbers of these names.
CLASSES = """
dataset_info:
  config_name: main
  features:
  - name: question
    dtype: string
  - name: answer
    dtype:
      class_label:
        names:
          '0': 'no'
          '1': 'yes'
---
"""

# The client reads its address when it is imported, so each attempt is a process of its own; it tries
# a list of calls and prints what each gave.
CLIENT = """
import json, sys
from pathlib import Path
from score_core.errors import UserError
from score_core.models.folders import fetch_hub_model
from score_core.data.sources import read_source
from tests.configs import config

def model(output, path, revision):
    fetch_hub_model(path, revision, Path(output))
    return sorted(file.name for file in Path(output).iterdir())

def data(**options):
    columns = {"problem": options.pop("problem", "question")}
    source = read_source(config(data={"source": "hub", "columns": columns, **options}).data)
    return [source.revision, source.train.name, len(source.train.rows), source.test.rows[1].answers,
            [row.problem for row in source.train.rows[:2]]]

for call, *arguments in json.loads(sys.argv[1]):
    try:
        result = model(*arguments) if call == "model" else data(**arguments[0])
    except UserError as error:
        result = f"UserError: {error}"
    print("RESULT", json.dumps(result))
"""


def ask(endpoint, home, *calls):
    result = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(calls)],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    tiny = root / "models/own/tiny"
    tiny_model.build("llama", 1, tiny)
    (tiny / "pytorch_model.bin").write_bytes(b"pickle")
    (tiny / "onnx").mkdir()
    (tiny / "onnx" / "model.json").write_text("{}")
    sums = root / "datasets/own/sums/main"
    sums.mkdir(parents=True)
    for split in ("train", "test"):
        rows = {"question": [f"{split} {n}" for n in range(5)], "answer": [f"#### {n}" for n in range(5)]}
        pq.write_table(pa.table(rows), sums / f"{split}-00000-of-00001.parquet")
    (sums.parent / "README.md").write_text(CARD)
    for name, form in (("csv", "csv"), ("classes", "csv"), ("jsonl", "jsonl")):
        plain = root / f"datasets/own/{name}"
        plain.mkdir()
        card = CARD.replace("main/", "").replace("-*", f".{form}")
        declared = card.removesuffix("---\n") + CLASSES.lstrip()
        (plain / "README.md").write_text(declared if name == "classes" else card)
        for split in ("train", "test"):
            lines = {"csv": CSV, "jsonl": JSONL, "classes": NUMBERED}[name]
            (plain / f"{split}.{form}").write_text("\n".join(lines) + "\n")
    return root


CSV = ["question,answer", "007,1", "NA,9007199254740993", "2020-01-31,"]
NUMBERED = ["question,answer", "007,0", "NA,1", "2020-01-31,"]
JSONL = ['{"question": "a", "answer": 1}', '{"question": "b", "answer": 1000000000000000001}']


SUMS = {"path": "own/sums", "name": "main"}


def test_models_and_data_sets_are_fetched_pinned_and_mistakes_explained(repositories, tmp_path):
    home = tmp_path / "home"
    with local_hub(repositories) as endpoint:
        model, none, revision, name, data, csv, classes, jsonl, config, split, column, both = ask(
            endpoint,
            home,
            ["model", str(tmp_path / "out"), "own/tiny", "main"],
            ["model", str(tmp_path / "no"), "own/none", "main"],
            ["model", str(tmp_path / "no"), "own/tiny", "v9"],
            ["model", str(tmp_path / "no"), "a/b/c", "main"],
            ["data", SUMS],
            ["data", {**SUMS, "path": "own/csv"}],
            ["data", {**SUMS, "path": "own/classes"}],
            ["data", {**SUMS, "path": "own/jsonl"}],
            ["data", {**SUMS, "name": "other"}],
            ["data", {**SUMS, "test_split": "exam"}],
            ["data", {**SUMS, "problem": "query"}],
            ["data", {**SUMS, "test_set": {"path": "own/jsonl", "name": None, "revision": "main"}}],
        )
    assert "model.safetensors" in model and "tokenizer.json" in model
    assert "pytorch_model.bin" not in model and "onnx" not in model
    assert json.loads((tmp_path / "out" / "source.json").read_text())["commit"] == COMMIT
    assert none.startswith("UserError: model.path: the hub has no model own/none")
    assert revision.startswith("UserError: model.revision: the hub model own/tiny has no revision v9")
    assert name.startswith("UserError: model.path: expected the name of a hub model")
    assert data == [COMMIT, "own/sums:train", 5, ["#### 1"], ["train 0", "train 1"]]
    assert both == [f"train {COMMIT}, test {COMMIT}", *data[1:3], jsonl[3], data[4]]
    assert csv[3:] == [["9007199254740993"], ["007", "NA"]]
    assert classes[2:] == [3, ["yes"], ["007", "NA"]]
    assert jsonl[3:] == [["1000000000000000001"], ["a", "b"]]
    assert "'other' not found" in config and "data.name" in config
    assert "exam" in split and "data.test_split" in split
    assert "own/sums:train: column query is missing, found question, answer" in column
    assert not (tmp_path / "no").exists()

    # What was fetched before serves without a connection; what was not is a clear error.
    nowhere = "http://127.0.0.1:9"
    again, fresh, fresh_data = ask(
        nowhere,
        home,
        ["model", str(tmp_path / "again"), "own/tiny", COMMIT],
        ["model", str(tmp_path / "no"), "own/fresh", "main"],
        ["data", {**SUMS, "path": "own/fresh"}],
    )
    assert again == model
    for message, section in ((fresh, "model"), (fresh_data, "data")):
        assert message.startswith(f"UserError: {section}.path: the hub ")
        assert "could not be fetched" in message and f"{section}.source: local" in message
        assert "\n" not in message
