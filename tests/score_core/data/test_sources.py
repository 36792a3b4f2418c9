"""Reading rows from local folders in each format, and the errors of each mistake."""

import json

import pytest
from datasets import Dataset, DatasetDict

from score_core.data.sources import read_source
from score_core.errors import UserError
from tests.configs import config

TRAIN = {"question": ["one plus one?", "two plus\ntwo?"], "answer": ["#### 2", "#### 4"]}
TEST = {"question": ["three plus three?"], "answer": ["#### 6"]}


def local(folder, **options):
    columns = {"problem": "question", **options.pop("columns", {})}
    return config(data={"source": "local", "path": str(folder), "columns": columns, **options}).data


def write(folder, form):
    for split, rows in (("train", TRAIN), ("test", TEST)):
        data = Dataset.from_dict(rows)
        path = str(folder / f"{split}.{form}")
        {"parquet": data.to_parquet, "csv": data.to_csv, "jsonl": data.to_json}[form](path)


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv", "saved"])
def test_every_format_gives_the_same_rows(tmp_path, form):
    if form == "saved":
        DatasetDict(train=Dataset.from_dict(TRAIN), test=Dataset.from_dict(TEST)).save_to_disk(tmp_path)
    else:
        write(tmp_path, form)
    source = read_source(local(tmp_path))
    assert [(row.number, row.problem, row.answers) for row in source.train.rows] == [
        (0, "one plus one?", ("#### 2",)),
        (1, "two plus\ntwo?", ("#### 4",)),
    ]
    assert len(source.test.rows) == 1
    assert source.revision is None


def test_a_changed_file_is_read_anew(tmp_path):
    write(tmp_path, "jsonl")
    read_source(local(tmp_path))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "new?", "answer": "#### 1"}) + "\n")
    assert read_source(local(tmp_path)).test.rows[0].problem == "new?"


def test_numbers_become_text_and_missing_values_empty_text(tmp_path):
    (tmp_path / "train.csv").write_text("id,question,answer\n7,a,2\n8,b,\n")
    (tmp_path / "test.csv").write_text("id,question,answer\n9,c,2.5\n")
    source = read_source(local(tmp_path, columns={"id": "id"}))
    assert [(row.id, row.answers) for row in source.train.rows] == [("7", ("2.0",)), ("8", ("",))]
    assert source.test.rows[0].answers == ("2.5",)


def test_other_split_names(tmp_path):
    DatasetDict(a=Dataset.from_dict(TRAIN), b=Dataset.from_dict(TEST)).save_to_disk(tmp_path)
    assert len(read_source(local(tmp_path, train_split="a", test_split="b")).test.rows) == 1
    with pytest.raises(UserError, match=r"no split train, found a, b; set data\.train_split"):
        read_source(local(tmp_path))


def refused(data):
    with pytest.raises(UserError) as caught:
        read_source(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_named(tmp_path):
    assert f"data.path: {tmp_path / 'none'} is not a folder" in refused(local(tmp_path / "none"))


def test_a_missing_file_names_what_is_there(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}\n")
    message = refused(local(tmp_path, train_split="dev"))
    assert "dev.parquet, dev.jsonl, dev.csv for data.train_split, found train.jsonl" in message


def test_two_files_of_a_split_are_ambiguous(tmp_path):
    write(tmp_path, "jsonl")
    write(tmp_path, "csv")
    assert "found train.csv, train.jsonl; keep one file a split" in refused(local(tmp_path))


def test_a_missing_column_names_file_column_and_columns(tmp_path):
    write(tmp_path, "jsonl")
    message = refused(local(tmp_path, columns={"answer": "gold"}))
    assert message == (
        f"{tmp_path / 'train.jsonl'}: column gold is missing, found question, answer; "
        "set data.columns.answer."
    )


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_broken_file_is_named(tmp_path, form):
    write(tmp_path, form)
    (tmp_path / f"test.{form}").write_text("{broken\n")
    assert f"{tmp_path / f'test.{form}'}: cannot be read (" in refused(local(tmp_path))


@pytest.mark.parametrize("form", ["parquet", "jsonl", "saved"])
def test_a_list_holds_several_gold_answers(tmp_path, form):
    rows = {"question": ["a", "b", "c", "d"], "answer": [["1", " one "], ["2"], [], None]}
    if form == "saved":
        DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows)).save_to_disk(tmp_path)
    for split in ("train", "test"):
        if form == "parquet":
            Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
        if form == "jsonl":
            Dataset.from_dict(rows).to_json(tmp_path / f"{split}.jsonl")
    answers = [row.answers for row in read_source(local(tmp_path)).test.rows]
    assert answers == [("1", "one"), ("2",), (), ("",)]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"question": "a", "answer": [["1"]]}, "column answer: expected text or a number, found a list"),
        ({"question": "a", "answer": {"b": 1}}, "column answer: expected text or a number, found a dict"),
        ({"question": ["a"], "answer": "1"}, "column question: expected text or a number, found a list"),
    ],
)
def test_nested_values_are_refused(tmp_path, row, column):
    write(tmp_path, "jsonl")
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    assert f"test.jsonl: row 0 (from 0), {column}" in refused(local(tmp_path))


def test_one_saved_data_set_has_no_splits(tmp_path):
    Dataset.from_dict(TRAIN).save_to_disk(tmp_path)
    assert "holds one data set without splits" in refused(local(tmp_path))
