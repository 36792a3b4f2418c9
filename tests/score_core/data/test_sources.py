"""Reading rows from local folders in each format, and the errors of each mistake."""

import json
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

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


# As they stand in a file. Guessing makes of them 1e+18, 7, nothing, a time, another number.
GOLDS = [
    "1000000000000000001",
    "1e18",
    "1E16",
    "007",
    "2.50",
    "-0",
    "9007199254740993",
    "123456789012345678901",
]
WORDS = ["NA", "None", "null", "NaN", "", "2020-01-31", "2020-01-31T10:00:00Z", "true", " 7 ", "12:30"]


def rows_of(path, gold):
    return [
        (row.problem, row.answers) for row in read_source(local(path, columns={"answer": gold})).test.rows
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_is_read_as_its_text(tmp_path, end):
    golds = GOLDS + WORDS
    lines = ["\ufeffgold,question", *(f"{gold},{gold}" for gold in golds), ""]
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(end.join(lines), encoding="utf-8", newline="")
    source = read_source(local(tmp_path, columns={"id": "gold", "answer": "gold"}))
    assert [(row.id, row.problem, row.answers) for row in source.test.rows] == [
        (gold, gold, (gold,)) for gold in golds
    ]


def test_a_jsonl_file_is_read_as_its_text(tmp_path):
    numbers = [gold for gold in GOLDS if gold != "007"]  # which JSON has only as text
    written = [*numbers, *map(json.dumps, GOLDS + WORDS), "true", "false"]
    expected = [*numbers, *GOLDS, *WORDS, "true", "false"]
    for split in ("train", "test"):
        lines = [f'{{"question": {gold}, "gold": {gold}, "more": [{gold}, "x"]}}\n' for gold in written]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    assert rows_of(tmp_path, "gold") == [(gold, (gold,)) for gold in expected]
    assert rows_of(tmp_path, "more") == [(gold, (gold, "x")) for gold in expected]


def test_a_missing_value_is_an_empty_text(tmp_path):
    write(tmp_path, "jsonl")
    lines = ['{"question": "a", "answer": null}', '{"question": "b"}', '{"question": "c", "answer": NaN}']
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    assert rows_of(tmp_path, "answer") == [(problem, ("",)) for problem in "abc"]


def write_arrow(folder, column, saved):
    table = pa.table({"question": [f"{n}?" for n in range(len(column))], "answer": column})
    if saved:
        DatasetDict(train=Dataset(table), test=Dataset(table)).save_to_disk(folder)
    for split in () if saved else ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet")


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("values", "stored", "expected"),
    [
        ([2**53 + 1, -(2**63), None], pa.int64(), ["9007199254740993", "-9223372036854775808", ""]),
        ([2**64 - 1], pa.uint64(), ["18446744073709551615"]),
        (
            [2.0, 0.1, -1e-7, 2.0**53 - 1, float("nan"), None],
            pa.float64(),
            ["2", "0.1", "-0.0000001", "9007199254740991", "", ""],
        ),
        ([0.1, 16777215.0], pa.float32(), ["0.1", "16777215"]),
        ([[0.1], [2.5]], pa.list_(pa.float32()), ["0.1", "2.5"]),
        ([Decimal("12345678901234567890.10")], pa.decimal128(38, 2), ["12345678901234567890.10"]),
        ([True, False], pa.bool_(), ["true", "false"]),
        ([" 007 ", "NA"], pa.large_string(), [" 007 ", "NA"]),
    ],
    ids=str,
)
def test_stored_numbers_become_exact_text(tmp_path, saved, values, stored, expected):
    write_arrow(tmp_path, pa.array(values, stored), saved)
    assert [answers for _, answers in rows_of(tmp_path, "answer")] == [(text,) for text in expected]


@pytest.mark.parametrize(
    ("value", "stored", "words"),
    [
        (
            1e18,
            pa.float64(),
            "1e+18 is stored as a float64, which holds not every integer from 9007199254740992",
        ),
        (-(2.0**53), pa.float64(), "is stored as a float64"),
        (2.0**24, pa.float32(), "is stored as a float32, which holds not every integer from 16777216"),
        (datetime(2020, 1, 31), pa.timestamp("s"), "found a datetime; store it as text"),
        (b"7", pa.binary(), "found a bytes"),
    ],
    ids=str,
)
def test_what_cannot_be_had_exactly_is_refused_by_row(tmp_path, value, stored, words):
    write_arrow(tmp_path, pa.array([None, value], stored), saved=False)
    message = refused(local(tmp_path))
    assert "train.parquet: row 1 (from 0), column answer: " in message and words in message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("test.csv", "question,answer\na,1\nb,2,3\n", "line 3: expected 2 values, found 3"),
        ("test.csv", "question,answer\na,1\nb\n", "line 3: expected 2 values, found 1"),
        ("test.csv", "question,answer,answer\na,1,2\n", "line 1: a name is given twice in question, answer"),
        ("test.csv", 'question,answer\na,"1\n', "unexpected end of data"),
        ("test.jsonl", '{"question": "a", "answer": 1}\n[1]\n', "line 2: expected an object, found '[1]'"),
        ("test.jsonl", '{"answer": 1, "answer": 2}\n', "line 1: a name is given twice in answer, answer"),
        ("test.jsonl", '{"question": "a",\n"answer": 1}\n', "line 1: "),
        ("test.jsonl", b'{"question": "\xff", "answer": 1}\n', "cannot be read ("),
        ("test.jsonl", "[" * 100_000, "cannot be read ("),
        ("test.jsonl", '{"question": "\\ud800", "answer": 1}', "'\\ud800' holds half a char"),
    ],
)  # fmt: skip
def test_a_damaged_plain_file_is_refused_by_line(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": 1}\n')
    assert words in refused(local(tmp_path))


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
    rows = {"question": ["a", "b", "c", "d"], "answer": [["1", "one"], ["2"], [], None]}
    if form == "saved":
        DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows)).save_to_disk(tmp_path)
    for split in ("train", "test"):
        if form == "parquet":
            Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
        if form == "jsonl":
            Dataset.from_dict(rows).to_json(tmp_path / f"{split}.jsonl")
    answers = [row.answers for row in read_source(local(tmp_path)).test.rows]
    assert answers == [("1", "one"), ("2",), (), ("",)]


def write_classes(folder, saved, rows, answer):
    features = Features({"question": Value("string"), "answer": answer})
    data = Dataset.from_dict({"question": [*"abcde"][: len(rows)], "answer": rows}).cast(features)
    if saved:
        DatasetDict(train=data, test=data).save_to_disk(folder)
    for split in () if saved else ("train", "test"):
        data.to_parquet(folder / f"{split}.parquet")


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("several", "rows", "expected"),
    [
        (False, [0, 3, None, -1], [("A",), ("D",), ("",), ("",)]),
        (True, [[3, 0], [1], [], None, [-1]], [("D", "A"), ("B",), (), ("",), ("",)]),
    ],
)
def test_classes_are_read_by_their_names(tmp_path, saved, several, rows, expected):
    kind = ClassLabel(names=["A", "B", "C", "D"])
    write_classes(tmp_path, saved, rows, List(kind) if several else kind)
    assert [answers for _, answers in rows_of(tmp_path, "answer")] == expected
    if not several:
        labels = [row.labels for row in read_source(local(tmp_path), ("answer",)).test.rows]
        assert labels == [(("answer", text),) for text in "AD--"]


def test_a_number_of_no_class_is_refused_by_row(tmp_path):
    write_classes(tmp_path, False, [0, -2], ClassLabel(names=["A", "B"]))
    assert "row 1 (from 0), column answer: -2 is none of its 2 classes" in refused(local(tmp_path))


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


def test_splits_that_were_saved_apart_are_found(tmp_path):
    for split, rows in (("train", TRAIN), ("test", TEST)):
        Dataset.from_dict(rows).save_to_disk(tmp_path / split)
    source = read_source(local(tmp_path))
    assert [row.problem for row in source.train.rows] == TRAIN["question"]
    assert [row.answers for row in source.test.rows] == [("#### 6",)]
    assert source.test.name == str(tmp_path / "test")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "saved"])
def test_columns_to_report_by_are_kept_as_labels(tmp_path, form):
    train = {**TRAIN, "level": ["3", None], "subject": ["Algebra", " "]}
    test = {**TEST, "level": ["1"], "subject": ["Geometry"]}
    if form == "saved":
        DatasetDict(train=Dataset.from_dict(train), test=Dataset.from_dict(test)).save_to_disk(tmp_path)
    for split, rows in (("train", train), ("test", test)):
        data, path = Dataset.from_dict(rows), str(tmp_path / f"{split}.{form}")
        {"parquet": data.to_parquet, "csv": data.to_csv, "jsonl": data.to_json, "saved": str}[form](path)
    source = read_source(local(tmp_path), ("subject", "level"))
    assert [row.labels for row in source.train.rows] == [
        (("subject", "Algebra"), ("level", "3")),
        (("subject", "-"), ("level", "-")),
    ]
    with pytest.raises(UserError, match=r"column topic is missing, found .*; set evaluation.by"):
        read_source(local(tmp_path), ("topic",))
