"""Grading a rollout: one batch of comparisons, rewards group by group, everything in order."""

import pytest

from score_core.answers.verifier import Verifier
from score_core.errors import UserError
from score_core.problems import Problem
from score_core.rewards.grader import Graded, Grader
from score_core.rewards.group import Ungraded
from score_core.rewards.terms import TERMS
from tests.configs import reward

ONE, TWO = Problem("1", "1+0", ("1",)), Problem("2", "1+1", ("2", "II"))


def ungraded(problem, attempt, *texts):
    tokens = [list(range(len(text))) for text in texts]
    return Ungraded(problem, attempt, texts, tokens, [len(text) > 7 for text in texts])


GROUPS = [
    ungraded(ONE, 1, "#### 1", "#### 2", "none"),
    ungraded(ONE, 2, "#### 01", "#### 1", "#### 3"),
    ungraded(TWO, 1, "#### 1", "#### 2", "<answer>2</answer>"),
]


def test_members_are_graded_in_order_each_by_its_own_problem():
    assert Grader(reward()).grade(GROUPS) == [
        [Graded("1", True, 1.0), Graded("2", False, 0.0), Graded(None, False, 0.0)],
        [Graded("1", True, 1.0), Graded("1", True, 1.0), Graded("3", False, 0.0)],
        [Graded("1", False, 0.0), Graded("2", True, 1.0), Graded("2", True, 1.0)],
    ]


def test_the_reward_may_differ_from_correctness():
    format_and_match = [{"name": "format_and_match", "weight": 1.0}]
    assert Grader(reward(terms=format_and_match)).grade(GROUPS[2:]) == [
        [Graded("1", False, 0.0), Graded("2", True, 0.5), Graded("2", True, 0.75)]
    ]


def test_terms_see_each_group_whole(monkeypatch):
    seen = []

    def watch(group):
        seen.append(group)
        return [float(len(group.texts))] * len(group.texts)

    monkeypatch.setitem(TERMS, "watch", watch)
    graded = Grader(reward(terms=[{"name": "watch", "weight": 1.0}])).grade(GROUPS)
    assert [[member.reward for member in group] for group in graded] == [[3.0] * 3] * 3
    assert [(group.problem, group.attempt, group.texts) for group in seen] == [
        (group.problem, group.attempt, group.texts) for group in GROUPS
    ]
    first = seen[0]
    assert first.tokens == GROUPS[0].tokens
    assert first.lengths == [6, 6, 4]
    assert seen[2].truncated == [False, False, True]
    assert first.extracted == ["1", "2", None]
    assert first.correct == [True, False, False]


def test_all_groups_are_verified_in_one_batch(monkeypatch):
    sizes = []
    verify_all = Verifier.verify_all

    def watch(self, texts, references):
        sizes.append(len(texts))
        return verify_all(self, texts, references)

    monkeypatch.setattr(Verifier, "verify_all", watch)
    Grader(reward()).grade(GROUPS)
    assert sizes == [9]


def test_no_groups_are_no_grades():
    assert Grader(reward()).grade([]) == []


@pytest.mark.parametrize(
    "changes", [{"extractor": "x"}, {"matcher": "x"}, {"terms": [{"name": "x", "weight": 1.0}]}]
)
def test_any_unknown_name_is_refused_when_the_grader_is_made(changes):
    with pytest.raises(UserError, match=r"reward\..*: there is no 'x'; known: "):
        Grader(reward(**changes))
