"""Problems on disk: what is written is read, and what is not usable is explained in one line."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from score_core.errors import UserError
from score_core.problems import Problem, read_problems, write_problems


def test_problems_survive_the_disk(tmp_path):
    problems = [Problem("a", "1+1", ("2",)), Problem("b", "capital?", ("Paris", "Paris, France"))]
    write_problems(tmp_path, "test", problems)
    assert read_problems(tmp_path, "test") == problems


def test_references_are_one_text_for_people():
    assert [Problem("a", "?", references).answer for references in [("2",), ("2", "II"), ()]] == [
        "2",
        "2 or II",
        "",
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (  # what earlier versions wrote
            {"id": ["a"], "problem": ["1+1"], "answer": ["2"]},
            "column references is missing; expected id, problem, references, found id, problem, answer",
        ),
        (
            {"id": ["a"], "problem": ["1+1"], "references": ["12"]},
            "column references: expected list<item: string>, found string",
        ),
        ({"id": ["a"], "problem": [""], "references": [["2"]]}, "row 0: problem is empty"),
        ({"id": ["a", "b"], "problem": ["1", "2"], "references": [["2"], []]}, "row 1: references is empty"),
        ({"id": ["a"], "problem": ["1+1"], "references": [["2", ""]]}, "row 0: references is empty"),
        ({"id": ["a"], "problem": ["1+1"], "references": [["2", None]]}, "row 0: references is empty"),
    ],
)
def test_unusable_files_are_explained(tmp_path, columns, message):
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UserError) as caught:
        read_problems(tmp_path, "test")
    assert str(caught.value) == f"{path}: {message}; run `dvc repro download_data`, which makes it."


def test_labels_survive_and_are_a_column_only_where_there_are_any(tmp_path):
    plain = Problem("a", "1+1", ("2",))
    labelled = Problem("b", "1+2", ("3",), (("subject", "Algebra"), ("level", "5")))
    write_problems(tmp_path, "test", [plain, labelled])
    assert read_problems(tmp_path, "test") == [plain, labelled]
    write_problems(tmp_path, "train", [plain])
    assert pq.read_schema(tmp_path / "train.parquet").names == ["id", "problem", "references"]
