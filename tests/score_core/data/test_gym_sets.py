"""Exercises of reasoning_gym, by name, and its own scorer as the matcher; where it is installed."""

import json
from importlib.util import find_spec

import pytest

from score_core.answers.verifier import Verifier
from score_core.data.splits import prepare
from score_core.errors import UserError
from tests.configs import config

INSTALLED = find_spec("reasoning_gym") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="reasoning_gym is not installed: an optional extra")
SIZES = {"train": 30, "validation": 4, "test": 4}


def settings(dataset="number_sequence", matcher="reasoning_gym", sandbox="required", **options):
    return config(
        data={"source": "reasoning_gym", "dataset": dataset, "options": options, "sizes": SIZES},
        reward={"extractor": "identity", "matcher": matcher, "sandbox": sandbox, "seconds": 5.0},
    )


@pytest.mark.skipif(INSTALLED, reason="reasoning_gym is installed here")
def test_what_to_install_is_one_line():
    for matcher in ("reasoning_gym", "integer"):
        with pytest.raises(UserError) as refusal:
            prepare(settings(matcher=matcher))
        assert str(refusal.value).endswith("not installed; `pip install reasoning-gym==0.1.25`.")


@needed
def test_splits_are_disjoint_and_hold_the_librarys_answers():
    from score_core.answers.gym import library

    scored, plain = prepare(settings()), prepare(settings(matcher="exact_match"))
    assert {name: len(rows) for name, rows in scored.splits.items()} == SIZES
    assert not scored.quarantined
    problems = [problem for rows in scored.splits.values() for problem in rows]
    assert len({problem.problem for problem in problems}) == sum(SIZES.values())
    bare = {problem.problem: problem.references for rows in plain.splits.values() for problem in rows}
    score = library().get_score_answer_fn("number_sequence")
    for problem in problems:
        entry = json.loads(problem.references[0])
        assert bare[problem.problem] == (entry["answer"],)
        assert score(entry["answer"], entry) == 1.0
    assert prepare(settings()).splits == scored.splits


@needed
def test_right_is_what_the_scorer_gives_all_points():
    """Any palindrome of the given letters is right here, and a part of the points is not all of them."""
    made = settings("palindrome_generation", min_length=5)
    verifier = Verifier(made.reward)
    problems = prepare(made).splits["train"]
    by_answer = {json.loads(problem.references[0])["answer"]: problem for problem in problems}
    right, problem = next((found, one) for found, one in by_answer.items() if found[0] != found[1])
    half, rest = right[: len(right) // 2], right[len(right) // 2 : (len(right) + 1) // 2]
    other = half[::-1] + rest + half
    assert other != right
    answers = [right, other, half, right + "a", "9" * 100_000]
    found = verifier.verify_all(answers, [problem.references] * len(answers))
    assert [verdict.correct for verdict in found] == [True, True, False, False, False]


@needed
def test_a_scorer_that_runs_answers_is_refused_unless_the_risk_is_accepted(tmp_path):
    with pytest.raises(UserError, match=r"the scorer of spiral_matrix runs answers as Python.*sandbox: none"):
        prepare(settings("spiral_matrix"))
    accepted = settings("spiral_matrix", sandbox="none")
    problem = prepare(accepted).splits["test"][0]
    endless = "[x for x in iter(int, 1)]"
    right = json.loads(problem.references[0])["answer"]
    found = Verifier(accepted.reward).verify_all([endless, right], [problem.references] * 2)
    assert [verdict.correct for verdict in found] == [False, True]


@needed
def test_unknown_names_and_options_are_refused():
    with pytest.raises(
        UserError, match=r"data\.dataset: reasoning_gym has no data set 'sudoko'; known: .*sudoku"
    ):
        prepare(settings("sudoko"))
    with pytest.raises(UserError, match=r"data\.options: number_sequence does not take them \(.*nonsense"):
        prepare(settings(nonsense=1))
