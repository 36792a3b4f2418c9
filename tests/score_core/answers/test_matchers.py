"""Grading: what is equal, what is not, and what takes too long."""

import multiprocessing
import signal
import threading

import pytest

from score_core.answers.matchers import ExactMatcher, IntegerMatcher, MathMatcher
from tests.configs import reward

MATH, INTEGER, EXACT = (matcher(reward()) for matcher in (MathMatcher, IntegerMatcher, ExactMatcher))


def equal(matcher, gold, answer):
    normalised = matcher.normalise(gold), matcher.normalise(answer)
    return None not in normalised and matcher.equal_all([normalised[0]], [normalised[1]])[0]


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1000", "1,000"),
        ("1000", "1{,}000"),
        ("1000", r"1\,000"),
        ("3", "3.0"),
        (r"\frac12", "0.5"),
        (r"\frac{1}{2}", ".5"),
        (r"\dfrac{2}{4}", "1/2"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        ("x^2+1", "1+x^2"),
        ("(C)", r"\text{(C)}"),
        ("C", "(C)."),
        ("t+1", r"\boxed{t+1}"),
        ("18", "$18"),
        ("18", r"\$18"),
        ("18", "$18$"),
        ("18", "**18**"),
        (r"20\%", "20"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"\{1,2\}", "2, 1"),
        ("5", "x = 5"),
        (r"\sqrt{2}", "2^{1/2}"),
        (r"\sin^2 x + \cos^2 x", "1"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"90^\circ", "90"),
        ("\u22123", "-3"),
    ],
)
def test_math_accepts_equal_answers(gold, answer):
    assert equal(MATH, gold, answer)
    assert equal(MATH, gold, gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("1000", "1001"),
        ("3", "3.1"),
        (r"\frac12", "0.51"),
        ("x^2+1", "x^2-1"),
        ("(C)", "(B)"),
        ("t+1", "t"),
        ("(1,2)", "(2,1)"),
        ("[1,2)", "[1,2]"),
        ("1,000", "1"),
        ("Evelyn", "Angela"),
        ("18", "18 and 19"),
        # Nothing equals an empty or unreadable answer, not even itself.
        ("", ""),
        ("5", ""),
        (" ", " "),
        ("...", "..."),
        (r"\boxed{}", r"\boxed{}"),
        ("$$", "$$"),
        (r"\frac{1}{", r"\frac{1}{"),
        ("9" * 2000, "9" * 2000),
    ],
)
def test_math_refuses_unequal_and_unreadable_answers(gold, answer):
    assert not equal(MATH, gold, answer)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("42", "42"),
        ("0042", "42"),
        ("0", "0"),
        ("-0", "0"),
        ("000", "0"),
        ("1,000", "1000"),
        ("$1,000", "1000"),
        ("-$5", "-5"),
        ("\u22125", "-5"),
        ("+7", "7"),
        ("3.0", "3"),
        ("18 dollars", "18"),
        ("x = 18.", "18"),
        (r"\boxed{18}", "18"),
        ("1" * 900, "1" * 900),
        ("", None),
        ("none", None),
        ("3.5", None),
        (".5", None),
        ("3 or 4", None),
        ("3/4", None),
        ("٣", None),
        ("$" + "1" * 6000, None),
    ],
)
def test_integers_are_read(answer, value):
    assert INTEGER.normalise(answer) == value


@pytest.mark.parametrize("matcher", [MATH, INTEGER, EXACT])
@pytest.mark.parametrize(
    "answer", ["1,000", r"$\text{(C)}$", "$-18", r"\boxed{\frac{1}{2}}", " a  b ", "20%", "5."]
)
def test_normalising_twice_is_normalising_once(matcher, answer):
    once = matcher.normalise(answer)
    assert once is None or matcher.normalise(once) == once


def test_exact_counts_letters_not_white_space():
    assert equal(EXACT, "a  b", " a b\n")
    assert not equal(EXACT, "a b", "A b")
    assert not equal(EXACT, " ", "")


def test_gold_answers_that_algebra_cannot_read_are_told_apart():
    golds = ["18", r"\frac{1}{2}", "Evelyn", "x^2+1", "x^", r"\frac12"]
    assert MATH.readable_all(golds) == [True, True, True, True, False, True]


@pytest.mark.parametrize("tower", ["9^{9^{9^{9}}}", r"(x+1)^{99999999}"])
def test_the_time_limit_holds_and_the_next_comparison_works(tower):
    def give_up(number: int, frame: object) -> None:
        raise TimeoutError("the comparison has no limit")

    matcher = MathMatcher(reward(seconds=0.5))
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)  # a watchdog: the helper's start alone takes seconds on a busy machine
    try:
        assert not equal(matcher, tower, "x^{3}-7")
    finally:
        signal.alarm(0)
    assert equal(matcher, "x+1", "1+x")


def test_comparisons_work_side_by_side_in_threads():
    matcher = MathMatcher(reward(seconds=5.0))
    verdicts = {}

    def compare(number):
        verdicts[number] = equal(matcher, f"x+{number}", f"{number}+x"), equal(matcher, f"y+{number}", "y")

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == dict.fromkeys(range(1, 5), (True, False))


def test_a_batch_keeps_its_order_and_repeats():
    golds = ["x+1", "2", "x+1", "y", "3"]
    answers = ["1+x", "3", "x", "y", "3.0"]
    assert MATH.equal_all(golds, answers) == [True, False, False, True, True]


def _compare_in_child(matcher, verdicts):
    verdicts.put((equal(matcher, "z+1", "1+z"), equal(matcher, "z+2", "z")))


def test_comparisons_work_in_a_forked_process_and_leave_the_parent_s_alone():
    matcher = MathMatcher(reward(seconds=5.0))
    assert equal(matcher, "x+1", "1+x")
    context = multiprocessing.get_context("fork")
    verdicts = context.SimpleQueue()
    child = context.Process(target=_compare_in_child, args=(matcher, verdicts))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert verdicts.get() == (True, False)
    assert equal(matcher, "y+1", "1+y")
