"""Quarantine, duplicates, disjointness and sizes of the prepared splits."""

import json

import pytest

from score_core.data.sources import Row, Source, Split
from score_core.data.splits import Refused, prepare
from score_core.errors import UserError
from score_core.problems import content_hash
from tests.configs import config


def prepared(folder, train, test=(("last?", "#### 9"),), **data):
    for split, rows in (("train", train), ("test", test)):
        lines = [
            json.dumps({"key": f"{split}{n}", "question": q, "answer": a}) for n, (q, a) in enumerate(rows)
        ]
        (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines))
    columns = {"problem": "question", **data.pop("columns", {})}
    return prepare(config(data={"source": "local", "path": str(folder), "columns": columns, **data}))


def numbered(count, start=0):
    return [(f"problem {number}?", f"so\n#### {number:,}") for number in range(start, start + count)]


def test_gold_answers_are_extracted(tmp_path):
    splits = prepared(tmp_path, numbered(50, start=1000)).splits
    answers = {p.problem: p.references for p in splits["train"] + splits["validation"]}
    assert answers == {f"problem {number}?": (str(number),) for number in range(1000, 1050)}


def test_rows_without_a_usable_gold_answer_are_quarantined_with_the_reason(tmp_path):
    bad = [("bad one?", "no idea"), ("bad two?", ""), ("", "#### 3"), ("bad three?", "#### 2.5")]
    result = prepared(tmp_path, numbered(40) + bad, columns={"id": "key"})
    assert [(row.split, row.row, row.id) for row in result.quarantined] == [
        ("train", 40, "train40"),
        ("train", 41, "train41"),
        ("train", 42, "train42"),
        ("train", 43, "train43"),
    ]
    assert all(row.reason for row in result.quarantined)
    assert sum(map(len, result.splits.values())) == 41


def test_several_gold_answers_lose_those_that_cannot_be_read(tmp_path):
    several = [
        ("two?", ["#### 2", "no idea", "2", "#### 3"]),
        ("bad?", ["no idea", "#### 2.5"]),
        ("none?", []),
    ]
    rows = [(problem, [answer]) for problem, answer in numbered(40)]
    result = prepared(tmp_path, rows + several, columns={"id": "key"})
    (two,) = [p for p in result.splits["train"] + result.splits["validation"] if p.problem == "two?"]
    assert two.references == ("2", "3")
    assert result.dropped_answers == [
        Refused("train", 40, "train40", "'no idea' is no answer to the matcher integer", "no answer")
    ]
    assert [(row.id, row.reason) for row in result.quarantined] == [
        (
            "train41",
            "'no idea' is no answer to the matcher integer; '2.5' is no answer to the matcher integer",
        ),
        ("train42", "no answer found by the extractor gsm8k_hash"),
    ]


def test_reasons_for_quarantine_are_counted_and_say_how_to_rescue_rows(tmp_path):
    bad = [
        ("one?", "no idea"),
        ("two?", "none"),
        ("three?", ""),
        ("", "#### 3"),
        ("four?", r"\boxed{3} \boxed{4}"),
    ]
    result = prepared(tmp_path, numbered(40) + bad)
    reasons = {row["reason"]: row for row in result.reasons}
    assert {kind: row["rows"] for kind, row in reasons.items()} == {
        "no answer": 2,
        "not found": 1,
        "empty problem": 1,
        "several boxes": 1,
    }
    assert sum(row["rows"] for row in result.reasons) == len(result.quarantined)
    assert reasons["no answer"]["example"].startswith("train row 40: 'no idea' is no answer")
    assert "reward.matcher" in reasons["no answer"]["rescue"]
    assert "one box" in reasons["several boxes"]["rescue"]


def test_a_wrong_name_is_refused_before_the_source_is_read():
    with pytest.raises(
        UserError, match=r"reward\.extractor: there is no 'gsm8k_hsh'; did you mean gsm8k_hash"
    ):
        prepare(config(data={"path": "nowhere"}, reward={"extractor": "gsm8k_hsh"}))


HUB = {
    "source": "hub",
    "path": "own/sums",
    "columns": {"problem": "question"},
    "sizes": {"train": 3, "validation": 1, "test": 1},
}


def test_a_smoke_run_reads_the_fixture_of_a_hub_data_set(tmp_path):
    local = prepared(tmp_path, numbered(40), sizes=HUB["sizes"])
    result = prepare(config(smoke=True, data={**HUB, "validation_share": 0.1, "fixture": str(tmp_path)}))
    assert result.splits == local.splits
    assert [len(problems) for problems in result.splits.values()] == [3, 1, 1]
    assert result.revision is None


@pytest.mark.parametrize("own", [None, {"path": "own/exam", "name": None, "revision": "main"}])
def test_problems_of_the_test_split_from_elsewhere_are_not_trained_on(tmp_path, monkeypatch, own):
    """Published splits may share problems, and nobody can remove them there; one's own have to be right."""
    split = lambda name, rows: Split(  # noqa: E731
        name, [Row(at, None, problem, (answer,)) for at, (problem, answer) in enumerate(rows)]
    )
    shared = [("In both?", "#### 1"), *numbered(40)]
    sets = Source(split("here", shared), split("there", [("only there?", "#### 2"), ("in  BOTH?", "#### 1")]))
    monkeypatch.setattr("score_core.data.splits.read_source", lambda data, by: sets)
    result = prepare(config(data={**HUB, "test_set": own, "sizes": {"train": None, "test": None}}))
    assert {one.problem for one in result.splits["test"]} == {"only there?", "in  BOTH?"}
    trained_on = {one.problem for name in ("train", "validation") for one in result.splits[name]}
    assert trained_on == {problem for problem, _ in shared[1:]}
    assert [(row.split, row.row, row.reason) for row in result.duplicates] == [
        ("train", 0, "the same problem as there row 1, which is tested on")
    ]
    with pytest.raises(UserError, match="expected train and test to be disjoint"):
        prepared(tmp_path, shared, test=[("in  BOTH?", "#### 1")])


def test_duplicates_keep_the_first_usable_row(tmp_path):
    rows = [
        ("Same  problem?", "none"),
        ("same problem?", "#### 1"),
        ("SAME problem?", "#### 1.0"),
        *numbered(40),
    ]
    result = prepared(tmp_path, rows)
    kept = [p for p in result.splits["train"] + result.splits["validation"] if p.references == ("1",)]
    assert "same problem?" in {p.problem for p in kept}
    assert [(row.row, row.reason) for row in result.duplicates] == [(2, "the same problem as row 1")]
    assert [row.row for row in result.quarantined] == [0]


CONFLICT = [
    ("Same problem?", "#### 1"),
    *numbered(40),
    ("same problem?", "#### 1"),
    ("same  problem?", "#### 2"),
    ("other?", ["#### 1", "#### 2"]),
    ("other?", ["#### 1"]),
    ("third?", ["#### 1"]),
    ("third?", ["#### 1", "#### 2"]),
]


def listed(rows):
    return [(problem, answer if isinstance(answer, list) else [answer]) for problem, answer in rows]


def test_one_problem_with_two_gold_answers_is_refused_by_row(tmp_path):
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, listed(CONFLICT))
    assert str(caught.value).startswith(
        f"{tmp_path / 'train.jsonl'} row 0 and row 42, counted from 0, hold the same problem (white space "
        "and case aside) with different gold answers, '1' and '2' (and 2 more such problems); "
    )
    assert "data.conflicting_answers: drop" in str(caught.value) and "\n" not in str(caught.value)


def test_one_problem_with_two_gold_answers_is_left_out_where_one_says_so(tmp_path, caplog):
    result = prepared(tmp_path, listed(CONFLICT), columns={"id": "key"}, conflicting_answers="drop")
    assert sorted(p.problem for p in result.splits["train"] + result.splits["validation"]) == sorted(
        problem for problem, _ in numbered(40)
    )
    assert [(row.split, row.row, row.id) for row in result.conflicting] == [
        ("train", 0, "train0"),
        ("train", 41, "train41"),
        ("train", 42, "train42"),
        ("train", 43, "train43"),
        ("train", 44, "train44"),
        ("train", 45, "train45"),
        ("train", 46, "train46"),
    ]
    assert (
        "rows 0 and 42" in result.conflicting[0].reason and "rows 43 and 44" in result.conflicting[4].reason
    )
    assert result.duplicates == []
    assert "train.jsonl: 3 problems left out" in caplog.text


def test_gold_answers_that_the_matcher_holds_equal_are_no_conflict(tmp_path):
    rows = [("half?", ["1/2", "x+1"]), ("half?", ["0.5", "1+x"]), *((f"{n}?", [str(n)]) for n in range(40))]
    columns = {"problem": "question"}
    for split, content in (("train", rows), ("test", [("last?", ["9"])])):
        lines = [json.dumps({"question": problem, "answer": answers}) for problem, answers in content]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    math = {"extractor": "identity", "matcher": "math_acc"}
    result = prepare(config(data={"path": str(tmp_path), "columns": columns}, reward=math))
    assert [row.row for row in result.duplicates] == [1] and result.conflicting == []


def test_white_space_in_a_problem_stays(tmp_path):
    splits = prepared(tmp_path, [("    def f():\n", "#### 1"), *numbered(40), (" \n", "#### 1")]).splits
    assert "    def f():\n" in {p.problem for p in splits["train"] + splits["validation"]}


def test_question_and_answer_have_columns_of_their_own():
    with pytest.raises(UserError, match=r"data\.columns: answer: question is the column of the problems too"):
        config(data={"columns": {"problem": "question", "answer": "question"}})


def test_a_problem_in_both_splits_is_refused_with_rows_and_files(tmp_path):
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, numbered(5), test=[("new?", "#### 1"), ("Problem  3?", "#### 3"), *numbered(1)])
    message = str(caught.value)
    assert f"{tmp_path / 'train.jsonl'} row 3 and {tmp_path / 'test.jsonl'} row 1, counted from 0" in message
    assert "1 more such pair" in message
    assert "remove it from one of them" in message
    assert "\n" not in message


def test_splits_share_no_problem_and_validation_is_chosen_by_content(tmp_path):
    few = prepared(tmp_path, numbered(200), validation_share=0.3).splits
    many = prepared(tmp_path, numbered(400), validation_share=0.3).splits
    for splits in (few, many):
        hashes = [{content_hash(p.problem) for p in splits[name]} for name in ("train", "validation", "test")]
        assert len(set.union(*hashes)) == sum(map(len, hashes))
    # Rows that were added moved none of the others.
    assert {p.id for p in few["validation"]} <= {p.id for p in many["validation"]}
    assert {p.id for p in few["train"]} <= {p.id for p in many["train"]}
    assert 0.2 < len(many["validation"]) / 400 < 0.4


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    assert prepared(tmp_path, numbered(60)).splits == prepared(tmp_path, numbered(60)[::-1]).splits


def test_sizes_cut_deterministically(tmp_path):
    whole = prepared(tmp_path, numbered(100), numbered(30, start=500)).splits
    cut = prepared(tmp_path, numbered(100), numbered(30, start=500), sizes={"train": 20, "test": 7}).splits
    assert cut["train"] == whole["train"][:20]
    assert cut["test"] == whole["test"][:7]
    assert cut["validation"] == whole["validation"]


@pytest.mark.parametrize(("train", "test", "name"), [([], numbered(1), "train"), (numbered(9), [], "test")])
def test_an_empty_split_is_refused(tmp_path, train, test, name):
    with pytest.raises(UserError, match=rf"{name}\.jsonl: the split is empty; expected at least one problem"):
        prepared(tmp_path, train, test)


def test_a_split_that_is_all_quarantined_says_why(tmp_path):
    with pytest.raises(UserError, match=r"found 1 rows, all quarantined \(row 0: .*check reward\.extractor"):
        prepared(tmp_path, numbered(30), test=[("what?", "nothing")])


def test_too_few_problems_for_a_validation_split(tmp_path):
    with pytest.raises(UserError, match=r"none is left for the split validation at data\.validation_share"):
        prepared(tmp_path, numbered(2), validation_share=0.0001)


def test_ids_are_unique_over_all_splits(tmp_path):
    ids = [p.id for split in prepared(tmp_path, numbered(40)).splits.values() for p in split]
    assert len(set(ids)) == len(ids) == 41


def test_an_id_given_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"row 0 and .*test\.jsonl row 0, .* have the same id '#### 9'"):
        prepared(tmp_path, [("first?", "#### 9"), *numbered(40, start=100)], columns={"id": "answer"})
