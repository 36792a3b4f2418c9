"""Extractors on the forms that attempts and gold answers take."""

import time

import pytest

from score_core.answers.answer_part import MAX_CHARACTERS, answer_part, without_thinking
from score_core.answers.extractors import EXTRACTORS
from score_core.answers.verifier import Verifier
from score_core.config.reward import named
from tests.configs import reward

WATCHDOG_SECONDS = 50  # ten times what is promised for a pair
HOSTILE = [
    "1",
    "<answer>",
    r"\boxed{",
    "1,",
    " ",
    "#### ",
    "####",
    "<think>",
    "</think>",
    "<think></think>",
    "```\n",
]
HOSTILE += [
    "Final Answer: The final answer is" + " " * 3000,
    "I hope it is correct",
    r"\frac{",
    "1.1.",
    "1/",
    "\n",
]


def extract(name, text, **settings):
    return named(EXTRACTORS, name, "reward.extractor", reward(**settings))(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("it takes 1/3 pound", "1/3"),
        (r"that is \frac{1}{3}", r"\frac{1}{3}"),
        ("an area of 5 cm^2", "5"),
        ("about 7e5", "7e5"),
        ("at 3:30", "3:30"),
        ("so 2^{10}", "2^{10}"),
        ("59321", "59321"),
        ("first 12, no: 13", "13"),
        ("The total is 1,234.", "1,234"),
        ("1, 2, 3", "3"),
        ("10-3", "3"),
        ("10 - 3", "3"),
        ("so x = -3", "-3"),
        ("it costs $5", "$5"),
        ("about 3.5 or 3.0", "3.0"),
        ("none", None),
        ("", None),
    ],
)
def test_last_number(text, answer):
    assert extract("last_number", text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 5 + 2 = <<5+2=7>>7 apples.\n#### 7", "7"),
        ("#### 5\nno:\n#### 1,200", "1,200"),
        ("#### $12", "$12"),
        ("<answer>3</answer> #### 7", "3"),
        ("<answer>3</answer> or <answer> 4 </answer>", "4"),
        ("<answer>3 <answer>4</answer>", "4"),
        ("<answer></answer> 7", ""),  # the form is there and holds nothing: no other number counts
        ("</answer> 9 <answer>", "9"),
        ("<answer>8", "8"),  # cut at the length limit
        ("#### none, so 6", "none, so 6"),
        ("#### 7 or 8", "7 or 8"),
        ("#### 7-8\nBye", "7-8"),
        (r"#### 7 \boxed{8}", "8"),
        (r"\boxed{8} #### 7", "7"),
        (r"\boxed{8} in 3 days", "8"),
        ("Final Answer: The final answer is 4. Not 5.", "4. Not 5"),
        ("nothing", None),
    ],
)
def test_gsm8k_hash(text, answer):
    assert extract("gsm8k_hash", text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and done", r"\frac{1}{2}"),
        (r"\boxed{1}, no, \boxed{\sqrt{\frac{a}{b}}}.", r"\sqrt{\frac{a}{b}}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{3} then \boxed{4", "3"),  # the last complete one
        (r"\fbox{7}", "7"),
        (r"so \boxed 7", "7"),
        (r"\boxed 7, no, \boxed{8}", "8"),
        (r"<answer>\boxed{5}</answer> \boxed{6}", r"\boxed{5}"),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "$5$"),
        ("Final Answer: The final answer is: 3.5.\nBye", "3.5"),
        ("Final Answer: The final answer is 1\nFinal Answer: The final answer is 2", "2"),
        ("Final Answer: The final answer is", None),
        ("the answer is 5", None),
    ],
)
def test_math_final_answer(text, answer):
    assert extract("math_final_answer", text) == answer


def test_the_marker_is_the_configured_one():
    assert extract("math_final_answer", "ANSWER: 12", marker="ANSWER:") == "12"


def test_identity_takes_the_whole_text():
    assert extract("identity", " a b\n") == "a b"


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear_in_the_length(name, piece):
    """Nothing but a quadratic pattern takes minutes over what is read of an answer."""
    start = time.monotonic()
    extract(name, piece * (MAX_CHARACTERS // len(piece)))
    assert time.monotonic() - start < WATCHDOG_SECONDS


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("piece", HOSTILE)
def test_ten_megabytes_are_graded_as_ten_lines_are(name, piece):
    verifier = Verifier(reward(extractor=name, matcher="exact_match"))
    start = time.monotonic()
    verifier.verify_all([piece * (10_000_000 // len(piece))], [("7",)])
    assert time.monotonic() - start < WATCHDOG_SECONDS


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("boxed", r"\boxed{1} \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", "<answer>1</answer>", None),
        ("answer_tag", "<answer> 1 </answer>", "1"),
        ("answer_tag", r"\boxed{1}", None),
        ("marker", "Final Answer: The final answer is: $5$. I hope it is correct.", "$5$"),
        ("marker", r"\boxed{1}", None),
        ("code_block", "So:\n```python\nx = 1\n\ny = 2\n```\nor\n```\nx = 3\n```", "x = 3\n"),
        ("code_block", "```python\nx = 1\n```\nand\n```python\nx =", "x ="),
        ("code_block", "```python\nx = 1\n```\nwhich prints\n```text\n1\n```", "x = 1\n"),
        ("code_block", "x = 1", None),
        ("code_block", "```python\nx = 1", "x = 1"),
    ],
)
def test_single_forms(name, text, answer):
    assert extract(name, text) == answer


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no thinking", "no thinking"),
        ("<think>a</think>b", "\nb"),
        ("a<think>b</think>c", "a\nc"),
        ("opened in the prompt</think>b", "b"),
        ("x</think>y<think>z</think>b", "y\nb"),
        ("<think><think>a</think>b</think>c", "c"),
        ("a<think>b", None),
        ("<think>a</think>b<think>c", None),
    ],
)
def test_thinking_is_no_part_of_the_answer(text, shown):
    assert without_thinking(text) == shown


def test_the_end_of_a_long_answer_is_read():
    assert answer_part("a" * MAX_CHARACTERS + "b", None) == "a" * (MAX_CHARACTERS - 1) + "b"
    long = "<think>" + "a" * 3_000_000 + "</think>b"
    assert answer_part(long, None) == "b"
    assert answer_part("<think>" + "a" * 3_000_000 + "b", None) is None


@pytest.mark.parametrize(
    ("extractor", "text", "extracted"),
    [
        ("identity", "5 <b>M</b> 6 M 7", "7"),
        ("identity", "5 7", None),
        ("identity", "M 6 <think>M 5</think>", "6"),
        ("identity", "M 6 <think>M 5", None),
        ("boxed", r"\boxed{5} M \boxed{6}", "6"),
        ("boxed", r"\boxed{5} M 6", None),
        ("marker", "M: 6. I hope it is correct.", "6"),
        ("math_final_answer", "M 6.\n7", "6"),
        ("math_final_answer", "<answer>6</answer> 7", None),
        ("gsm8k_hash", "5 M so 6", "6"),
    ],
)
def test_in_the_final_mode_only_what_follows_the_marker_is_read(extractor, text, extracted):
    verifier = Verifier(reward(mode="final", marker="M", extractor=extractor, matcher="exact_match"))
    assert verifier.verify_all([text], [("6",)])[0].extracted == extracted


def test_gold_answers_need_no_marker_in_the_final_mode():
    verifier = Verifier(reward(mode="final", extractor="math_final_answer", matcher="math_acc"))
    (bare, boxed, marked, text) = verifier.golds(
        [("5",), (r"so\n\boxed{6}",), ("we get\nFinal Answer: The final answer is 7.",), ("so\n5",)]
    )
    assert [gold.references for gold in (bare, boxed, marked, text)] == [("5",), ("6",), ("7",), ()]
