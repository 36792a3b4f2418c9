"""Reward terms: the figures of each, weighted sums, terms that compare a group, unknown names."""

import time

import pytest

from score_core.errors import UserError
from score_core.problems import Problem
from score_core.rewards.group import Group
from score_core.rewards.terms import TERMS, Rewards
from tests.configs import reward


def group(*texts, correct, attempt=1):
    return Group(
        Problem("1", "2+2", ("4",)),
        attempt,
        texts=texts,
        tokens=[[5] * len(text) for text in texts],
        truncated=[False] * len(texts),
        extracted=["4" if right else None for right in correct],
        correct=correct,
    )


def rewards(**weights):
    terms = [{"name": name, "weight": weight} for name, weight in weights.items()]
    return Rewards(reward(terms=terms), training=True)


def test_match_pays_right_answers():
    assert rewards(match=1.0).score(group("4", "5", correct=[True, False])) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "correct", "term", "value"),
    [
        ("<think>a</think><answer>4</answer>", True, "format_and_match", 1.0),
        ("<think>a</think><answer>5</answer>", False, "format_and_match", 0.5),
        ("<answer>4</answer>", True, "format_and_match", 0.75),
        ("<think>a</think> 4", True, "format_and_match", 0.75),
        ("4", True, "format_and_match", 0.5),
        ("</think><think> 5", False, "format_and_match", 0.0),
        ("<think>a</think><answer>1</answer><answer>4</answer>", True, "format_and_match", 0.75),
        ("<think>a</think></answer><answer>5", False, "format_and_match", 0.25),
        ("<think>a</think>\n<answer>4</answer>\n", True, "strict_format_and_match", 1.0),
        ("<think>a</think><answer>5</answer>", False, "strict_format_and_match", 0.5),
        ("So: <think>a</think><answer>4</answer>", True, "strict_format_and_match", 0.5),
        ("<think>a</think> thus <answer>4</answer>", True, "strict_format_and_match", 0.5),
        ("<think>a</think><think>b</think><answer>4</answer>", True, "strict_format_and_match", 0.5),
        ("<answer>4</answer><think>a</think>", True, "strict_format_and_match", 0.5),
        ("5", False, "strict_format_and_match", 0.0),
        ("<think>a</think>\n<answer>4</answer>\n", False, "format", 1.0),
        ("<think>a</think> 4 <answer>4</answer>", True, "format", 0.0),
        ("<think>a<answer>4</answer></think>", True, "format", 0.0),
        ("<think>a</think><answer>4</answer>", False, "tag_count", 1.0),
        ("a</think><answer>4</answer>", False, "tag_count", 0.75),
        ("<answer>4</answer><answer>5</answer>", True, "tag_count", 0.0),
        ("Step 1: add.\nStep 2: stop.", False, "reasoning_steps", 2 / 3),
        ("1. a\n2. b\n- c\n* d", True, "reasoning_steps", 1.0),
        ("First, a. Finally, b. It costs 3.5", True, "reasoning_steps", 2 / 3),
        ("a b c", True, "repetition", 0.0),
        ("a b", True, "repetition", 0.0),
        ("a b c A B C", True, "repetition", -1 / 4),
        ("so so so so so so", False, "repetition", -3 / 4),
    ],
)
def test_terms_of_form_add_credit_for_it(text, correct, term, value):
    assert rewards(**{term: 1.0}).score(group("", text, correct=[False, correct])) == [0.0, value]


@pytest.mark.parametrize(
    ("tokens", "right", "value"),
    [
        (0, True, 1.0),
        (500, True, 0.75),
        (1000, True, 0.5),
        (9000, True, 0.5),
        (0, False, -0.5),
        (500, False, -0.25),
        (1000, False, 0.0),
        (9000, False, 0.0),
    ],
)
def test_length_pays_short_right_and_long_wrong_answers(tokens, right, value):
    assert rewards(cosine_length=1.0).score(group("a" * tokens, correct=[right])) == [pytest.approx(value)]


def test_length_falls_along_a_cosine():
    at_a_third = 0.5 + 0.25 * (1 + 0.5)  # cos(pi / 3) = 1 / 2
    one = group("a" * 333 + "a", correct=[True])
    assert rewards(cosine_length=1.0).score(one)[0] == pytest.approx(at_a_third, abs=1e-3)


@pytest.mark.parametrize(
    ("extracted", "references", "value"),
    [
        ("the black cat", ("Black cat",), 1.0),
        ("black", ("black cat",), 2 / 3),  # precision 1, recall 1/2
        ("black black", ("black cat",), 1 / 2),
        ("dog", ("cat", "black dog"), 2 / 3),  # the best of several
        ("dog", ("cat",), 0.0),
        ("the", ("the",), 0.0),
        (None, ("cat",), 0.0),
    ],
)
def test_f1_counts_common_tokens(extracted, references, value):
    one = Group(Problem("1", "?", references), 1, ["text"], [[1]], [False], [extracted], [False])
    assert rewards(f1=1.0).score(one) == [pytest.approx(value)]


HOSTILE = "<think>", "</think>", "<answer>", "Step 1", "Step 11", "1", "1.", "- ", "\n", " ", "a ", "First,"


@pytest.mark.parametrize("name", sorted({*TERMS} - {"code_share", "gold_judge"}))  # a sandbox, a model
@pytest.mark.parametrize("piece", HOSTILE)
def test_ten_megabytes_are_paid_as_ten_lines_are(name, piece):
    text = piece * (10_000_000 // len(piece))
    one = Group(Problem("1", "?", ("4",)), 1, [text], [[1]], [False], [None], [False])
    start = time.monotonic()
    rewards(**{name: 1.0}).score(one)
    assert time.monotonic() - start < 50  # ten times what is promised


def test_a_term_is_named_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_terms.py").write_text(
        "def brevity(group):\n    return [1 / length for length in group.lengths]\n\n"
        "class Weighed:\n    def __init__(self, settings):\n        self.weight = settings.weight\n\n"
        "    def __call__(self, group):\n        return [self.weight] * len(group.texts)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = {"own_terms:brevity": 1.0, "own_terms:Weighed": 2.0, "match": 0.5}
    assert rewards(**own).score(group("4444", "55", correct=[True, False])) == [0.25 + 4 + 0.5, 0.5 + 4]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:term", r"reward\.terms\.0\.name: no_such_module cannot be imported \(No module"),
        (
            "tests.configs:nothing",
            r"tests\.configs has no function or class 'nothing'; name a term as package",
        ),
        ("tests.configs:ROOT", "has no function or class 'ROOT'"),
        ("tests.configs:", "has no function or class ''"),
        (":term", "cannot be imported"),
        ("..a:term", "cannot be imported"),
    ],
)
def test_a_wrong_import_path_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        rewards(**{name: 1.0})


def test_weights_multiply_and_terms_add(monkeypatch):
    monkeypatch.setitem(TERMS, "brevity", lambda group: [1 / length for length in group.lengths])
    graded = rewards(match=2.0, brevity=-0.5).score(group("4444", "55", correct=[True, False]))
    assert graded == [2.0 - 0.125, -0.25]


def test_the_sum_does_not_depend_on_the_order_of_the_terms(monkeypatch):
    for name, value in (("large", 1e16), ("small", 1.0), ("back", -1e16)):
        monkeypatch.setitem(TERMS, name, lambda group, value=value: [value])
    one = group("4", correct=[True])
    assert rewards(large=1.0, small=1.0, back=1.0).score(one) == [1.0]
    assert rewards(small=1.0, back=1.0, large=1.0).score(one) == [1.0]


def test_a_term_may_compare_the_members_of_a_group_and_know_the_attempt(monkeypatch):
    def shortest(group):
        """1 for the shortest right answers of a group, at the first attempt only."""
        lengths = [n for n, right in zip(group.lengths, group.correct, strict=True) if right]
        return [
            float(right and n == min(lengths) and group.attempt == 1)
            for n, right in zip(group.lengths, group.correct, strict=True)
        ]

    monkeypatch.setitem(TERMS, "shortest", shortest)
    members = ("long 4", "4", "5", "is 4"), [True, True, False, True]
    assert rewards(shortest=1.0).score(group(*members[0], correct=members[1])) == [0.0, 1.0, 0.0, 0.0]
    assert rewards(shortest=1.0).score(group(*members[0], correct=members[1], attempt=2)) == [0.0] * 4


def test_a_term_may_be_made_from_its_settings_and_keep_a_state(monkeypatch):
    class Calls:
        def __init__(self, settings):
            assert (settings.name, settings.weight) == ("calls", 0.5)
            self.count = 0

        def __call__(self, group):
            self.count += 1
            return [self.count] * len(group.texts)

    monkeypatch.setitem(TERMS, "calls", Calls)
    made = rewards(calls=0.5)
    assert [made.score(group("4", correct=[True])) for _ in range(2)] == [[0.5], [1.0]]


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError) as caught:
        rewards(match=1.0, format_and_mach=1.0)
    assert str(caught.value) == (
        "reward.terms.1.name: there is no 'format_and_mach'; did you mean format_and_match? "
        "Known: code_share, cosine_length, f1, format, format_and_match, gold_judge, match, reasoning_steps, "
        "repetition, strict_format_and_match, tag_count."
    )


@pytest.mark.parametrize("values", [[1.0], [1.0, 0.0, 0.0], [float("nan"), 0.0], [float("inf"), 0.0]])
def test_a_term_that_does_not_return_one_finite_number_a_member_is_named(monkeypatch, values):
    monkeypatch.setitem(TERMS, "broken", lambda group: values)
    with pytest.raises(ValueError, match="reward term broken: expected one finite number for each of the 2"):
        rewards(broken=1.0).score(group("4", "5", correct=[True, False]))


@pytest.mark.parametrize(
    "terms", [[], [{"name": "match"}], [{"weight": 1.0}], [{"name": "match", "weight": float("inf")}]]
)
def test_terms_state_name_and_finite_weight_and_there_is_at_least_one(terms):
    with pytest.raises(UserError, match=r"reward\.terms"):
        reward(terms=terms)
