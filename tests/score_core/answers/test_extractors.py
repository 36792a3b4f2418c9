"""Extractors on the forms that attempts and gold answers take."""

import pytest

from score_core.answers.extractors import EXTRACTORS
from score_core.config.reward import named
from tests.configs import reward


def extract(name, text, **settings):
    return named(EXTRACTORS, name, "reward.extractor", reward(**settings))(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
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
def test_last_integer(text, answer):
    assert extract("last_integer", text) == answer


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
        ("#### none, so 6", "6"),
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


@pytest.mark.parametrize("name", ["last_integer", "gsm8k_hash", "math_final_answer"])
@pytest.mark.parametrize("text", ["1" * 50_000, "<answer>" * 5_000, r"\boxed{" * 2_000, "1," * 30_000])
def test_hostile_texts_do_not_stall(name, text):
    extract(name, text)
