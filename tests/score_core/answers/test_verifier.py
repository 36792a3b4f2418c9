"""Right or wrong: verdicts, several references, the reading of gold answers, names, speed."""

import random
import re
from pathlib import Path

import pytest

from score_core.algorithms import SETTINGS
from score_core.answers.extractors import EXTRACTORS
from score_core.answers.matchers import MATCHERS, ExactMatcher
from score_core.answers.verifier import Verdict, Verifier
from score_core.config.parsing import load_config
from score_core.errors import UserError
from tests.configs import reward
from tests.sandbox import needs_sandbox

OPTIONAL = {
    "reasoning_gym"
}  # needs a package that few install; tests/score_core/data/test_gym_sets.py has it
HERE = [
    pytest.param(name, marks=needs_sandbox if name == "code_tests" else ())
    for name in MATCHERS
    if name not in OPTIONAL
]


def verifier(extractor="gsm8k_hash", matcher="integer"):
    return Verifier(reward(extractor=extractor, matcher=matcher))


def verify(text, *references, **names):
    return verifier(**names).verify_all([text], [references])[0]


def test_a_verdict_holds_the_normalised_answer():
    assert verify("so #### 1,000", "1000") == Verdict("1000", True)
    assert verify("so #### 999", "1000") == Verdict("999", False)
    assert verify("no idea", "1000") == Verdict(None, False)


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("matcher", HERE)
@pytest.mark.parametrize(
    "text", ["", " \n", "<answer></answer>", r"\boxed{}", "Final Answer: The final answer is"]
)
def test_nothing_equals_an_empty_gold_answer_or_none(extractor, matcher, text):
    names = {"extractor": extractor, "matcher": matcher}
    assert not verify(text, "", **names).correct
    assert not verify(text, **names).correct


@pytest.mark.parametrize(("text", "correct"), [("#### 7", True), ("#### 8", True), ("#### 9", False)])
def test_an_attempt_is_right_if_any_reference_matches(text, correct):
    assert verify(text, "7", "8").correct is correct
    assert verify(text, "8", "7").correct is correct
    assert verify(text, "unreadable", "8", "7").correct is correct


def test_each_attempt_of_a_batch_is_compared_with_its_own_references():
    texts = ["#### 1", "two", "<answer>3</answer>", "", "#### 4,000", "#### 5"]
    references = [("1",), ("2",), ("4", "5"), ("",), ("1", "4000"), ()]
    together = verifier().verify_all(texts, references)
    assert together == [verify(text, *golds) for text, golds in zip(texts, references, strict=True)]
    assert [verdict.correct for verdict in together] == [True, False, False, False, True, False]


def golds(*raw, **names):
    found = verifier(**names).golds([(texts,) if isinstance(texts, str) else texts for texts in raw])
    return [gold.references for gold in found], [tuple(why.says for why in gold.reasons) for gold in found]


def test_gold_answers_go_through_the_same_extractor():
    references, reasons = golds("5 + 2 = 7\n#### 7", "#### 1,200", "no number", "", "#### 2.5")
    assert references == [("7",), ("1200",), (), (), ()]
    assert reasons == [
        (),
        (),
        ("'no number' is no answer to the matcher integer",),
        ("no answer found by the extractor gsm8k_hash",),
        ("'2.5' is no answer to the matcher integer",),
    ]


def test_a_bare_gold_answer_stands_for_itself_and_a_long_text_does_not():
    references, reasons = golds(
        r"\frac{1}{2}",
        r"Thus \boxed{x+1}.",
        "x^",
        "We see.\nIt is five.",
        "word " * 100,
        extractor="math_final_answer",
        matcher="math_acc",
    )
    assert references == [(r"\frac{1}{2}",), ("x+1",), (), (), ()]
    assert reasons[2] == ("'x^' cannot be compared by the matcher math_acc",)


SENTENCES = r"""
Natalia sold 100+100 = 200 clips. #### 200
Natalia sold 48/2 = <<48/2=24>>24 clips in May.
#### 200
The final answer is 200.
The answer is $\frac{1}{2}$.
Answer: (B)
""".strip().splitlines()
ANSWERS = r"""
\text{Evelyn}
11:30 p.m.
3 \text{ hours and } 20 \text{ minutes}
10\%
May 5
Type 2
Monday
no solution
It is even
x is even
x is a multiple of 4
n is 2 mod 3
all n such that n is 0 mod 4
12 apples
5 cm^2
$3.50 per hour
\text{Friday, May 5, 2003}
5 red and 3 blue marbles
\text{all integers } n \ge 2
the circle whose radius is 2
x = 2 \text{ or } x = -3
2x + 3/4 = 1 \text{ or } x = 5
y = 2x + 3 \text{ for } x > 0
infinitely many solutions when a = 2
answer = 5
""".strip().splitlines()


@pytest.mark.parametrize("extractor", ["math_final_answer", "marker", "boxed"])
def test_a_sentence_that_holds_its_answer_is_no_bare_gold_answer(extractor):
    found = verifier(extractor, "math_acc").golds([(text,) for text in SENTENCES + ANSWERS])
    refused = [gold.reasons[0] for gold in found if not gold.references]
    said = f"no answer found by the extractor {extractor} in "
    assert [reason.says for reason in refused] == [f"{said}{text!r}" for text in SENTENCES]
    assert {reason.kind for reason in refused} == {"not found"}


def test_a_sentence_is_no_matter_where_the_extractor_finds_an_answer_or_words_are_compared():
    sentence = "The final answer is 200."
    assert golds(sentence, extractor="last_number", matcher="math_acc")[0] == [("200",)]
    assert golds(sentence, extractor="identity", matcher="math_acc")[0] == [("The final answer is 200",)]
    assert golds(sentence, extractor="boxed", matcher="em")[0] == [("final answer is 200",)]


def test_what_may_be_a_sentence_is_kept_with_a_warning(caplog):
    kept = "She has 12 apples left"
    assert golds(kept, "5", extractor="boxed", matcher="math_acc")[0] == [(kept,), ("5",)]
    assert f"1 of the gold answers may be sentences that hold the answer, such as {kept!r}" in caplog.text
    assert "where that is not meant, set reward.extractor" in caplog.text
    caplog.clear()
    golds(rf"\boxed{{{kept}}}", *ANSWERS[:8], extractor="boxed", matcher="math_acc")
    assert not caplog.text


def test_several_gold_answers_keep_those_that_can_be_read_once_each():
    references, reasons = golds(["#### 7", "none", "7.0", "8"], ["none", "#### 2.5"], [])
    assert references == [("7", "8"), (), ()]
    assert [len(row) for row in reasons] == [1, 2, 1]
    assert "'none'" in reasons[0][0]


def test_prepared_gold_answers_judge_the_raw_ones_right():
    raw = ["so 7\n#### 7", "#### -1,200"]
    prepared = [gold.references for gold in verifier().golds([(text,) for text in raw])]
    assert all(verdict.correct for verdict in verifier().verify_all(raw, prepared))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"extractor": "gsm8k_hsh"},
            "reward.extractor: there is no 'gsm8k_hsh'; did you mean gsm8k_hash? Known: answer_tag, ",
        ),
        (
            {"matcher": "intger"},
            "reward.matcher: there is no 'intger'; did you mean integer? Known: code_tests, em, ",
        ),
        (
            {"matcher": "zzz"},
            "reward.matcher: there is no 'zzz'; known: code_tests, em, exact_match, in_acc, ",
        ),
        ({"matcher": "math"}, "reward.matcher: there is no 'math'; did you mean math_acc?"),
        ({"matcher": "exact"}, "reward.matcher: there is no 'exact'; did you mean exact_match?"),
        ({"extractor": "last_integer"}, "there is no 'last_integer'; did you mean last_number?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(names, message):
    with pytest.raises(UserError) as caught:
        verifier(**names)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_extractor_and_a_matcher_are_added_in_one_line_each(monkeypatch):
    class CaseMatcher(ExactMatcher):
        def normalise(self, answer):
            return super().normalise(answer.casefold())

    monkeypatch.setitem(EXTRACTORS, "first_word", lambda text: text.split()[0] if text.split() else None)
    monkeypatch.setitem(MATCHERS, "case", CaseMatcher)
    assert verify("Paris it is", "paris", extractor="first_word", matcher="case") == Verdict("paris", True)


def test_a_whole_step_of_texts_is_verified_at_once():
    texts = [str(number * 7919 % 999_983) for number in range(1024)]
    references = [(text,) for text in texts]
    embedded = verifier("last_number", "integer")
    assert all(verdict.correct for verdict in embedded.verify_all(texts, references))
    assert not any(verdict.correct for verdict in embedded.verify_all(texts, references[1:] + references[:1]))


# What the embedded default's model can say: its digits, its two signs, and the words of its instructions.
SPOKEN = [*"0123456789", "+", "=", "check", " your", "answer", " fix"]


def test_the_embedded_default_grades_as_it_always_did():
    embedded = Verifier(load_config(Path("params.yaml"), SETTINGS, ()).reward)
    rng = random.Random(1)
    texts = ["".join(rng.choices(SPOKEN, k=rng.randint(0, 8))) for _ in range(20_000)]
    for text, verdict in zip(texts, embedded.verify_all(texts, [("42",)] * len(texts)), strict=True):
        digits = re.findall("[0-9]+", text)
        last = str(int(digits[-1])) if digits else None
        assert verdict == Verdict(last, last == "42"), text
