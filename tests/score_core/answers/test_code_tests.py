"""Programs as answers: right is what passes the tests that are its problem's gold answer."""

import pytest

from score_core.answers import code_tests
from score_core.answers.code_tests import MAX_CHARACTERS, CodeTests, Suite, share_passed
from score_core.answers.extractors import code_block
from score_core.answers.sandbox.pool import Pool
from score_core.answers.verifier import Verifier
from score_core.config.reward import Term
from score_core.errors import UserError
from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rewards.group import Ungraded
from tests.configs import reward
from tests.sandbox import needs_sandbox

ADD_ONE = Suite(
    ("f",), ("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0"), "def f(x): return x + 1"
)
GOLD = ADD_ONE.as_text()
SETTINGS = {"extractor": "code_block", "matcher": "code_tests", "seconds": 2.0}


def block(program: str) -> str:
    return f"Here it is:\n```python\n{program}\n```\nDone."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\r\nx = 1\n```", "x = 1\n"),
        ("first ```python\nx = 1\n``` then\n```python\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1\n```\nIt prints\n```text\n1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),  # cut at the length limit, or ended without the fence
        ("x = 1", None),
        ("```x = 1```", None),
        ("```js\nlet x = 1\n```", None),
        ("", None),
        ("```", None),
    ],
)
def test_the_last_block_of_python_is_the_program(text: str, code: str | None) -> None:
    assert code_block(text) == code


def test_tests_are_text_and_back() -> None:
    assert Suite.of_text(GOLD) == ADD_ONE
    whole = Suite(("f", "G"), ("1", "ä"), "s", "p", "u", "w")
    assert Suite.of_text(whole.as_text()) == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "null",
        "[]",
        "{}",
        '{"names": ["f"]}',
        GOLD[:-1],
        GOLD.replace("names", "nams"),
        '{"tests": 3}',
        Suite((), ("x",), "").as_text(),
        Suite(("f",), (), "").as_text(),
    ],
)
def test_other_text_holds_no_tests(text: str) -> None:
    assert Suite.of_text(text) is None


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "correct"),
    [
        ("def f(x): return x + 1", True),
        ("def f(x):\n    return 2", False),
        ("def f(x): return x +", False),
        ("f = lambda x: -~x", True),
        ("", False),
        ("print('passed')", False),
        ("x = '" + "a" * MAX_CHARACTERS + "'\ndef f(x): return x + 1", False),  # too long to be read
        ("def f(x): return x + 1 # \ud800", True),
    ],
)
def test_right_is_what_passes_all_tests(program: str, correct: bool) -> None:
    verdict = Verifier(reward(**SETTINGS)).verify_all([block(program)], [(GOLD,)])[0]
    assert verdict.correct is correct


@needs_sandbox
def test_gold_answers_whose_own_solution_fails_are_quarantined() -> None:
    golds = [
        Suite(ADD_ONE.names, ADD_ONE.tests, solution).as_text() for solution in ("def f(x): return 0", "f(")
    ]
    found = Verifier(reward(**SETTINGS)).golds([(GOLD,), *((gold,) for gold in golds), ("",), ("junk",)])
    assert [gold.references for gold in found] == [(GOLD,), (), (), (), ()]
    assert all("their own solution fails" in gold.reasons[0].says for gold in found[1:3])


@needs_sandbox
def test_the_share_of_tests_is_a_reward_and_accuracy_stays_binary() -> None:
    terms = [Term(name="match", weight=1.0), Term(name="code_share", weight=0.5)]
    settings = reward(**SETTINGS, terms=[term.model_dump() for term in terms])
    texts = [block(code) for code in ("def f(x): return x + 1", "def f(x): return 2", "def g(): 0")] + ["no"]
    group = Ungraded(Problem("a", "add one", (GOLD,)), 1, texts, [[1]] * 4, [False] * 4)
    (graded,) = Grader(settings).grade([group])
    assert [verdict.correct for verdict in graded] == [True, False, False, False]
    assert [verdict.reward for verdict in graded] == pytest.approx([1.5, 0.5 / 3, 0, 0])


def test_the_share_of_tests_needs_tests() -> None:
    with pytest.raises(
        UserError, match=r"code_share is the share of tests passed, and matcher: integer runs"
    ):
        reward(matcher="integer", terms=[{"name": "code_share", "weight": 1.0}])


@needs_sandbox
def test_a_program_is_judged_once_and_a_lost_verdict_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original, lose = Pool.judge_all, [True]

    def judge_all(self: Pool, jobs: list[object]) -> list[tuple[bool, ...] | None]:
        asked.append(len(jobs))
        return [None] * len(jobs) if lose.pop() else original(self, jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(Pool, "judge_all", judge_all)
    monkeypatch.setattr(code_tests, "_shares", {})
    matcher, program = CodeTests(reward(**SETTINGS)), "def f(x): return 1 + x"
    assert matcher.equal_all([GOLD, GOLD], [program, program]) == [False, False]
    lose += [False, False]
    assert matcher.equal_all([GOLD, GOLD], [program, program]) == [True, True]
    assert matcher.equal_all([GOLD], [program]) == [True]
    assert asked == [1, 1, 0] and share_passed((GOLD,), program) == 1.0


@needs_sandbox
def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tests, "REMEMBERED", 4)
    monkeypatch.setattr(code_tests, "_shares", {})
    matcher = CodeTests(reward(**SETTINGS))
    for number in range(4):
        programs = [f"def f(x): return x + 1 # {number} {other}" for other in range(3)]
        assert matcher.equal_all([GOLD] * 3, programs) == [True] * 3
        assert len(code_tests._shares) <= 4
        assert [share_passed((GOLD,), program) for program in programs] == [1.0] * 3
