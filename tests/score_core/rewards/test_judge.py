"""Verdicts: correctness apart from the reward, shapes, gold answers, speed."""

import time

import pytest

from score_core.config.schema import Reward
from score_core.rewards.judge import Judge, Verdict


def judge(extractor="gsm8k_hash", matcher="integer", shape="match"):
    return Judge(Reward(extractor=extractor, matcher=matcher, shape=shape))


def test_a_verdict_holds_the_normalised_answer():
    assert judge().score("so #### 1,000", "1000") == Verdict("1000", True, 1.0)
    assert judge().score("so #### 999", "1000") == Verdict("999", False, 0.0)
    assert judge().score("no idea", "1000") == Verdict(None, False, 0.0)


@pytest.mark.parametrize("extractor", ["last_integer", "gsm8k_hash", "math_final_answer", "identity"])
@pytest.mark.parametrize("matcher", ["integer", "math", "exact"])
@pytest.mark.parametrize(
    "text", ["", " \n", "<answer></answer>", r"\boxed{}", "Final Answer: The final answer is"]
)
def test_nothing_equals_an_empty_gold_answer(extractor, matcher, text):
    assert judge(extractor, matcher).score(text, "") == Verdict(
        judge(extractor, matcher).score(text, "1").extracted, False, 0.0
    )


@pytest.mark.parametrize(
    ("text", "shape", "reward"),
    [
        ("<think>a</think><answer>4</answer>", "format_and_match", 1.0),
        ("<think>a</think><answer>5</answer>", "format_and_match", 0.5),
        ("<answer>4</answer>", "format_and_match", 0.75),
        ("<think>a</think> 4", "format_and_match", 0.75),
        ("4", "format_and_match", 0.5),
        ("</think><think> 5", "format_and_match", 0.0),
        ("<think>a</think><answer>1</answer><answer>4</answer>", "format_and_match", 0.75),
        ("<think>a</think></answer><answer>5", "format_and_match", 0.25),
        ("<think>a</think>\n<answer>4</answer>\n", "strict_format_and_match", 1.0),
        ("<think>a</think><answer>5</answer>", "strict_format_and_match", 0.5),
        ("So: <think>a</think><answer>4</answer>", "strict_format_and_match", 0.5),
        ("<think>a</think> thus <answer>4</answer>", "strict_format_and_match", 0.5),
        ("<think>a</think><think>b</think><answer>4</answer>", "strict_format_and_match", 0.5),
        ("<answer>4</answer><think>a</think>", "strict_format_and_match", 0.5),
        ("5", "strict_format_and_match", 0.0),
    ],
)
def test_shapes_add_credit_for_the_form(text, shape, reward):
    verdict = judge(shape=shape).score(text, "4")
    assert verdict.reward == reward
    assert verdict.correct == (verdict.extracted == "4")


def test_a_batch_equals_one_by_one():
    texts = ["#### 1", "two", "<answer>3</answer>", "", "#### 4,000"]
    answers = ["1", "2", "4", "", "4000"]
    one_by_one = [judge().score(text, answer) for text, answer in zip(texts, answers, strict=True)]
    assert judge().score_all(texts, answers) == one_by_one


def test_gold_answers_go_through_the_same_extractor():
    golds = judge().golds(["5 + 2 = 7\n#### 7", "#### 1,200", "no number", "", "#### 2.5"])
    assert [gold.answer for gold in golds] == ["7", "1200", None, None, None]
    assert "extractor gsm8k_hash" in golds[2].reason or "matcher integer" in golds[2].reason
    assert all(gold.reason for gold in golds[2:])


def test_a_bare_gold_answer_stands_for_itself_and_a_long_text_does_not():
    golds = judge("math_final_answer", "math").golds(
        [r"\frac{1}{2}", r"Thus \boxed{x+1}.", "x^", "We see.\nIt is five.", "word " * 100]
    )
    assert [gold.answer for gold in golds] == [r"\frac{1}{2}", "x+1", None, None, None]


def test_prepared_gold_answers_judge_the_raw_ones_right():
    raw = ["so 7\n#### 7", "#### -1,200"]
    for text, gold in zip(raw, judge().golds(raw), strict=True):
        assert judge().score(text, gold.answer).correct


def test_judging_a_step_of_short_texts_takes_milliseconds():
    texts = [str(number * 7919 % 999_983) for number in range(1024)]
    embedded = judge("last_integer", "integer")
    embedded.score_all(texts, texts)
    started = time.perf_counter()
    verdicts = embedded.score_all(texts, texts)
    assert time.perf_counter() - started < 0.1  # about 2 ms where nothing else runs
    assert all(verdict.correct for verdict in verdicts)
