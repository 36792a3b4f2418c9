"""MBPP and HumanEval as problems whose tests travel with them, and wrong programs to repair."""

import json
from pathlib import Path
from typing import Any

import pytest

from score_core.answers.code_tests import Suite, in_block
from score_core.answers.verifier import Verifier
from score_core.data.changed_programs import changed
from score_core.data.code_formats import humaneval, mbpp
from score_core.data.splits import prepare
from score_core.errors import UserError
from score_core.problems import Problem
from tests.configs import ROOT, config
from tests.sandbox import needs_sandbox

FIXTURES = ROOT / "data/fixtures"
REWARD = {"extractor": "code_block", "matcher": "code_tests", "seconds": 2.0}


def code_set(kind: str, split: str, folder: Path | None = None) -> dict[str, Any]:
    path = str(folder or FIXTURES / kind)
    return {"format": kind, "path": path, "name": None, "revision": None, "split": split, "fixture": None}


def code_data(**changes: Any) -> dict[str, Any]:
    return {
        "source": "code",
        "train": code_set("mbpp", "train+validation"),
        "test": code_set("humaneval", "test"),
        "repair": code_set("mbpp", "test"),
        "wrong_programs": None,
        "shown_tests": 3,
        "validation_share": 0.1,
        "conflicting_answers": "drop",
        "sizes": {"train": None, "validation": None, "test": None},
        **changes,
    }


def prepared(watched: Path = FIXTURES, **changes: Any) -> Any:
    return prepare(config(data=code_data(**changes), reward=REWARD, watched={"data": str(watched)}))


def suite(problem: Problem) -> Suite:
    found = Suite.of_text(problem.references[0])
    assert found is not None
    return found


def rows(kind: str, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FIXTURES / kind / f"{split}.jsonl").read_text().splitlines()]


@needs_sandbox
def test_every_row_of_the_fixtures_becomes_a_problem_whose_solution_passes() -> None:
    result = prepared()
    sizes = {name: len(problems) for name, problems in result.splits.items()}
    assert sizes == {"train": 8, "validation": 2, "test": 5, "repair": 3} and not result.quarantined
    texts = {row["text"] for row in rows("mbpp", "train") + rows("mbpp", "validation")}
    trained = result.splits["train"] + result.splits["validation"]
    assert {problem.problem.split("\n")[0] for problem in trained} == texts
    assert len({problem.id for problems in result.splits.values() for problem in problems}) == 18


@needs_sandbox
def test_programs_to_repair_are_wrong_and_their_problems_are_not_trained_on() -> None:
    result = prepared()
    verifier = Verifier(config(reward=REWARD).reward)
    for problem in result.splits["repair"]:
        wrong, right = suite(problem).wrong_answer, in_block(suite(problem).solution)
        verdicts = verifier.verify_all([wrong, right], [problem.references] * 2)
        assert [verdict.correct for verdict in verdicts] == [False, True]
    with pytest.raises(UserError, match="hold the same problem"):
        prepared(repair=code_set("mbpp", "train"))


@needs_sandbox
def test_wrong_programs_may_be_given(tmp_path: Path) -> None:
    given = [
        {"id": 9201, "program": "def three_or_five(n):\n    return []"},
        {"id": "mbpp/9203", "program": rows("mbpp", "test")[2]["code"]},  # which is right,
        {"id": "mbpp/9203", "program": "def to_coins(prices):\n    return 5"},  # and another that is not
        {"id": "mbpp/1", "program": "of no such problem"},
    ]
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    result = prepared(Path("/"), wrong_programs=str(tmp_path / "wrong.jsonl"))
    wrong = {problem.id: suite(problem).wrong for problem in result.splits["repair"]}
    assert wrong == {"mbpp/9201": given[0]["program"], "mbpp/9203": given[2]["program"]}


def test_mbpp_shows_as_many_tests_as_asked() -> None:
    row = rows("mbpp", "train")[0]
    assert [sum(test in mbpp(row, shown)[1] for test in row["test_list"]) for shown in (0, 1, 3, 9)] == [
        0,
        1,
        3,
        3,
    ]


def test_mbpp_takes_the_columns_of_both_its_forms() -> None:
    full = {"task_id": 7, "text": "add", "code": "def f(x):\r\n  return x", "test_list": ["assert f(1) == 1"]}
    sanitized = {**full, "prompt": full["text"], "test_imports": ["import math"]}
    del sanitized["text"]
    identity, problem, tests = mbpp({**full, "test_setup_code": "y = f(2)", "challenge_test_list": []}, 0)
    assert (identity, problem, tests.names, tests.setup) == ("7", "add", ("f",), "y = f(2)")
    assert "\r" not in tests.solution
    assert mbpp(sanitized, 0)[2].setup == "import math\n"


def test_only_what_the_solution_defines_is_asked_of_a_program() -> None:
    code = "import math\nclass Node: pass\ndef sum(a): return a\ndef helper(): pass\nlimit = 3"
    tests = ["assert sum(Node()) == len([limit])", "assert math.isclose(1, abs(1))"]
    assert mbpp({"task_id": 1, "text": "t", "code": code, "test_list": tests}, 0)[2].names == (
        "Node",
        "limit",
        "sum",
    )


@needs_sandbox
def test_tests_may_use_what_the_solution_imports() -> None:
    code = "import sys\nfrom collections import Counter\n"
    code += "def size(x): return sys.getsizeof(x)\ndef count(x): return Counter(x)"
    tests = ["assert size((1, 2)) == sys.getsizeof((1, 2))", "assert count('aab') == Counter('aab')"]
    gold = mbpp({"task_id": 1, "text": "t", "code": code, "test_list": tests}, 0)[2].as_text()
    (found,) = Verifier(config(reward=REWARD).reward).golds([(gold,)])
    assert found.references == (gold,)


def test_humaneval_has_its_head_before_program_and_tests() -> None:
    row = rows("humaneval", "test")[2]
    identity, problem, tests = humaneval(row, 3)
    assert (identity, problem, tests.names) == ("HumanEval/902", row["prompt"], ("decode_shift",))
    assert tests.preamble == tests.setup == row["prompt"] and tests.tests[0].endswith("check(decode_shift)\n")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_list": "assert"}, "quarantined"),
        ({"code": "def f(x"}, "row 0 .from 0. is not in the format mbpp"),
        ({"task_id": None, "test_list": ["assert f("]}, "row 0 .from 0. is not in the format mbpp"),
    ],
)
@needs_sandbox
def test_rows_in_another_form_are_named(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    row = {
        "task_id": 1,
        "text": "t",
        "code": "def f(x): return x",
        "test_list": ["assert f(1) == 1"],
        **changes,
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=says):
        prepared(Path("/"), train=code_set("mbpp", "train", tmp_path))


@needs_sandbox
def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.train.path: .* has 0 of more.jsonl and more.parquet"):
        prepared(train=code_set("mbpp", "train+more"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"repair": None, "wrong_programs": "w.jsonl"}, "wrong_programs: there is nothing to repair"),
        ({"repair": code_set("humaneval", "test")}, "repair.format: programs are repaired of mbpp"),
        ({"train": {**code_set("mbpp", "train"), "name": "full"}}, "train.name: a local folder has none"),
        ({"train": {**code_set("mbpp", "train"), "format": "apps"}}, "data.train.format"),
        ({"wrong_programs": "elsewhere/w.jsonl"}, r"watched.data: .* does not hold data.wrong_programs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(data=code_data(**changes), reward=REWARD, watched={"data": str(FIXTURES)})


def test_a_smoke_run_without_fixtures_is_refused() -> None:
    hub = {**code_set("mbpp", "train"), "path": "google-research-datasets/mbpp", "revision": "main"}
    with pytest.raises(UserError, match=r"data\.train\.fixture: a smoke run of data from elsewhere needs it"):
        config(data=code_data(train=hub), reward=REWARD, watched={"data": str(FIXTURES)}, smoke=True)


def test_changed_programs_differ_in_one_place() -> None:
    found = list(changed("def f(x):\n    return x + 1 if x < 3 and not x == 2 else True"))
    wanted = [
        "def f(x):\n    return x - 1 if x < 3 and (not x == 2) else True",
        "def f(x):\n    return x + 1 if x < 3 or not x == 2 else True",
        "def f(x):\n    return x + 2 if x < 3 and (not x == 2) else True",
        "def f(x):\n    return x + 1 if x <= 3 and (not x == 2) else True",
        "def f(x):\n    return x + 1 if x < 4 and (not x == 2) else True",
        "def f(x):\n    return x + 1 if x < 3 and (not x != 2) else True",
        "def f(x):\n    return x + 1 if x < 3 and (not x == 3) else True",
    ]
    assert sorted(found) == sorted(wanted)
    assert list(changed("def f(x")) == list(changed("x = y")) == []
