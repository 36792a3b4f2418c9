"""Another first attempt in place of a correction, by hand."""

import pandas as pd
import pytest

from score_core.errors import UserError
from score_core.evaluation.metrics import summarise
from score_core.evaluation.resampled import resampled
from score_core.evaluation.word_overlap import word_overlap
from score_core.problems import Problem


def generations(correct: dict[str, list[bool]]) -> pd.DataFrame:
    """For each problem whether its samples' first attempts are right; second ones always are."""
    rows = [
        {"id": name, "problem": name, "answer": "1", "sample": number, "by_level": 3}
        | {f"{key}_t{t}": f"{name}{number}.{t}" for key in ("text", "extracted") for t in (1, 2)}
        | {f"correct_t{t}": right or t == 2 for t in (1, 2)}
        | {f"{key}_t{t}": 1.0 for key in ("reward", "tokens") for t in (1, 2)}
        | {f"truncated_t{t}": False for t in (1, 2)}
        for name, all_of in correct.items()
        for number, right in enumerate(all_of, start=1)
    ]
    return pd.DataFrame(rows)


def test_the_second_attempt_is_the_next_sample_of_the_same_problem() -> None:
    made = resampled(generations({"a": [True, False, True], "b": [False, False, False]}))
    assert made["text_t1"].tolist() == ["a1.1", "a2.1", "a3.1", "b1.1", "b2.1", "b3.1"]
    assert made["text_t2"].tolist() == ["a2.1", "a3.1", "a1.1", "b2.1", "b3.1", "b1.1"]
    assert made["correct_t2"].tolist() == [False, True, True, False, False, False]
    assert made["by_level"].tolist() == [3] * 6


def test_its_accuracy_is_the_first_one_s_in_whatever_order_rows_are() -> None:
    table = generations({"a": [True, False], "b": [False, False], "c": [True, True]})
    for made in (resampled(table), resampled(table.sample(frac=1, random_state=3))):
        metrics = summarise(made)
        assert metrics["accuracy_t1"] == metrics["accuracy_t2"] == 0.5 and metrics["delta"] == 0.0
        assert metrics["delta_i_to_c"] == metrics["delta_c_to_i"] == pytest.approx(1 / 6)


def test_rows_stay_where_they_are_beside_their_problems() -> None:
    table = generations({"b": [True, False], "a": [False, False]})
    made = resampled(table)
    assert made["id"].tolist() == table["id"].tolist() == ["b", "b", "a", "a"]
    assert made["text_t1"].tolist() == table["text_t1"].tolist()
    assert made["text_t2"].tolist() == ["b2.1", "b1.1", "a2.1", "a1.1"]
    problems = [Problem(id=name, problem=name, references=(f"{name}2.1",)) for name in "ba"]
    extracted = word_overlap(made, problems)
    assert extracted == {"f1_t1": 0.5, "f1_t2": 0.5}


def test_one_sample_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.samples: expected at least 2, found 1"):
        resampled(generations({"a": [True]}).drop(columns="sample"))
