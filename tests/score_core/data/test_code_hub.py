"""Sets of programming problems as a hub has them: parquet, several splits, pinned."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.configs import ROOT
from tests.local_hub import COMMIT, local_hub
from tests.score_core.data.test_code_sets import code_data, code_set, rows

CARD = """\
---
configs:
- config_name: full
  data_files:
  - split: train
    path: full/train-*
  - split: validation
    path: full/validation-*
---
"""
# The client reads its address when it is imported, so it is asked in a process of its own.
CLIENT = """
import json, sys
from score_core.data.code_sets import read_code
from score_core.errors import UserError
from tests.configs import config

for data in json.loads(sys.argv[1]):
    try:
        source = read_code(config(data=data, watched={"data": "/"}).data)
        result = [source.revision, source.train.name, [row.id for row in source.train.rows]]
    except UserError as error:
        result = str(error)
    print("RESULT", json.dumps(result))
"""


def ask(endpoint: str, home: Path, *data: object) -> list[object]:
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(data)],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`own/mbpp`, in the column types of the real one."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "datasets/own/mbpp/full"
    folder.mkdir(parents=True)
    texts, lists = pa.string(), pa.list_(pa.string())
    kinds = {
        "task_id": pa.int32(),
        "text": texts,
        "code": texts,
        "test_list": lists,
        "test_setup_code": texts,
    }
    schema = pa.schema([*kinds.items(), ("challenge_test_list", lists)])
    for split in ("train", "validation"):
        table = pa.Table.from_pylist(rows("mbpp", split), schema=schema)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    (folder.parent / "README.md").write_text(CARD)
    return root


def test_a_set_on_the_hub_is_read_pinned_and_mistakes_are_explained(hub: Path, tmp_path: Path) -> None:
    train = {**code_set("mbpp", "train+validation"), "path": "own/mbpp", "name": "full", "revision": "main"}
    changes: list[dict[str, str]] = [{}, {"path": "own/none"}, {"revision": "v9"}, {"split": "train+exam"}]
    with local_hub(hub) as endpoint:
        found, none, revision, split = ask(
            endpoint, tmp_path, *(code_data(train={**train, **change}) for change in changes)
        )
    ids = [f"mbpp/{row['task_id']}" for name in ("train", "validation") for row in rows("mbpp", name)]
    assert found == [f"train {COMMIT}", "own/mbpp:train+validation", ids]
    assert str(none).startswith("data.train.path: the hub has no dataset own/none")
    assert str(revision).startswith("data.train.revision: the hub dataset own/mbpp has no revision v9")
    assert "exam" in str(split) and "check data.train.name and split" in str(split)
    (offline,) = ask("http://127.0.0.1:9", tmp_path / "fresh", code_data(train=train))
    assert "name its folder in data.train.path and set data.train.revision: null" in str(offline)
