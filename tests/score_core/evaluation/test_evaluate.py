"""Evaluation of a model folder, against transformers' own `generate` and the template's own text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from score_core.errors import UserError
from score_core.evaluation.evaluate import attempt_all
from score_core.evaluation.word_overlap import word_overlap
from score_core.models.folders import load_model, load_tokenizer
from score_core.problems import Problem, read_problems
from score_core.rewards.grader import Grader
from score_core.rollout.conversation import Conversation
from tests.score_core.rollout.speaker import Speaker
from tests.small_run import RUNTIME, evaluate, small_config


def of(small_run: Path, problems: slice = slice(24), **evaluation: object) -> pd.DataFrame:
    config = small_config(evaluation=evaluation)
    return evaluate(small_run / "base", read_problems(small_run / "data", "test")[problems], config, RUNTIME)


def test_greedy_attempts_are_those_of_generate(small_run: Path) -> None:
    table = of(small_run)
    model, tokenizer = load_model(small_run / "base"), load_tokenizer(small_run / "base")
    settings = small_config().conversation
    first, retry = (Path(path).read_text().strip() for path in (settings.first, settings.retry))
    for row in table.itertuples():
        turns = [{"role": "user", "content": first.replace("{problem}", row.problem)}]
        for text in (row.text_t1, row.text_t2):
            prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
            ids = prompt["input_ids"]
            answer = model.generate(**prompt, max_new_tokens=settings.max_new_tokens, do_sample=False)
            assert text == tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
            turns += [{"role": "assistant", "content": text}, {"role": "user", "content": retry}]


def test_answers_are_as_long_as_evaluation_asks(small_run: Path) -> None:
    assert of(small_run)["tokens_t1"].max() > 2
    short = of(small_run, max_new_tokens=2)
    assert {*short["tokens_t1"], *short["tokens_t2"]} == {2} and short["truncated_t1"].all()


def test_accuracy_is_arithmetic(small_run: Path) -> None:
    table = of(small_run)
    for row in table.itertuples():
        right = sum(map(int, row.problem.split("+")))
        for text, correct in ((row.text_t1, row.correct_t1), (row.text_t2, row.correct_t2)):
            assert correct == (text.isdigit() and int(text) == right)
    assert 0 < table["correct_t1"].mean() < 1, "both outcomes must have been seen"


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_p": 0.9}])
def test_a_problem_is_answered_alike_in_any_company(small_run: Path, settings: dict[str, float]) -> None:
    together = of(small_run, batch_size=24, **settings)
    apart = of(small_run, batch_size=5, **settings)
    pd.testing.assert_frame_equal(together, apart)
    fewer = of(small_run, slice(3, 9), **settings)
    pd.testing.assert_frame_equal(together.iloc[3:9].reset_index(drop=True), fewer)


def test_more_samples_than_a_batch_holds_take_several(make_conversation: Callable[..., Conversation]) -> None:
    problems = [Problem(str(n), f"{n}+1", (str(n + 1),)) for n in range(2)]
    tables, counts = [], []
    for size in (10, 2):
        settings = small_config(evaluation={"temperature": 0.9, "samples": 5, "batch_size": size})
        engine: Any = Speaker()
        said, grader = make_conversation(max_new_tokens=4), Grader(settings.reward)
        tables.append(attempt_all(engine, said, grader, problems, settings.evaluation, seed=1))
        counts.append([request.count for request in engine.requests])
    pd.testing.assert_frame_equal(*tables)
    assert counts == [[10], [2, 2, 1, 2, 2, 1]]


def test_sampling_hangs_on_the_seed_alone(small_run: Path) -> None:
    settings = {"temperature": 1.5}
    first, again = of(small_run, **settings), of(small_run, **settings)
    pd.testing.assert_frame_equal(first, again)
    config = small_config(evaluation=settings, seed=6)
    problems = read_problems(small_run / "data", "test")[:24]
    other = evaluate(small_run / "base", problems, config, RUNTIME)
    assert (first["text_t1"] != other["text_t1"]).any()


def test_top_p_leaves_out_the_tail(small_run: Path) -> None:
    """With almost no mass allowed, sampling is greedy at any temperature."""
    nearly = of(small_run, temperature=1.0, top_p=1e-6)
    pd.testing.assert_frame_equal(nearly, of(small_run))


def test_up_to_ten_attempts(small_run: Path) -> None:
    table = of(small_run, slice(3), attempts=10)
    assert {f"correct_t{attempt}" for attempt in range(1, 11)} <= set(table)
    pd.testing.assert_series_equal(table["text_t2"], of(small_run, slice(3))["text_t2"])


def test_what_is_cut_at_the_limit_says_so(small_run: Path) -> None:
    config = small_config()
    short = config.conversation.model_copy(update={"max_new_tokens": 2})
    problems = read_problems(small_run / "data", "test")[:8]
    table = evaluate(small_run / "base", problems, config.model_copy(update={"conversation": short}), RUNTIME)
    assert table["truncated_t1"].all(), "a sum of two digits has three and an end"
    assert (table["tokens_t1"] == 2).all()
    assert not of(small_run, slice(8))["truncated_t1"].any()


def test_a_context_that_is_too_small_is_an_error_before_any_sampling(small_run: Path) -> None:
    config = small_config()
    long = config.conversation.model_copy(update={"max_new_tokens": 400})
    with pytest.raises(UserError, match=r"2 attempts can reach 8\d\d tokens .* context holds 512; lower"):
        evaluate(small_run / "base", [], config.model_copy(update={"conversation": long}), RUNTIME)


def test_threads_are_those_of_the_runtime(small_run: Path) -> None:
    problems = read_problems(small_run / "data", "test")[:2]
    evaluate(small_run / "base", problems, small_config(), RUNTIME.model_copy(update={"threads": 2}))
    assert torch.get_num_threads() == 2


def test_a_problem_that_is_too_long_is_refused_before_weights_are_loaded(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("score_core.evaluation.evaluate.load_model", lambda *_: pytest.fail("was loaded"))
    problems = [*read_problems(small_run / "data", "test"), Problem("last", "12+34" * 9, ("46",))]
    with pytest.raises(UserError, match=r"problem last \('12\+34.*: its prompt has \d+ tokens; expected at"):
        evaluate(small_run / "base", problems, small_config(), RUNTIME)


def test_samples_are_drawn_apart_and_the_first_is_the_only_one_of_one(small_run: Path) -> None:
    once = of(small_run, slice(6), temperature=1.5)
    four = of(small_run, slice(6), temperature=1.5, samples=4, batch_size=10)
    assert list(four["sample"]) == [1, 2, 3, 4] * 6
    assert list(four["id"]) == [name for name in once["id"] for _ in range(4)]
    first = four[four["sample"] == 1].drop(columns="sample").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, once)
    assert four.groupby("id")["text_t1"].nunique().max() > 1
    pd.testing.assert_frame_equal(four, of(small_run, slice(6), temperature=1.5, samples=4))


def test_labels_of_problems_are_columns(small_run: Path) -> None:
    problems = [
        replace(problem, labels=(("level", str(number % 2)),))
        for number, problem in enumerate(read_problems(small_run / "data", "test")[:5])
    ]
    settings = small_config(evaluation={"temperature": 1.0, "samples": 2})
    table = evaluate(small_run / "base", problems, settings, RUNTIME)
    assert list(table["by_level"]) == ["0", "0", "1", "1", "0", "0", "1", "1", "0", "0"]


def test_word_overlap_is_the_mean_of_the_best_f1_over_references() -> None:
    problems = [Problem("a", "?", ("red fox", "brown bear")), Problem("b", "?", ("blue",))]
    answers = ["brown fox", "the bear brown", None, "blue whale"]
    table = pd.DataFrame({"correct_t1": [False] * 4, "extracted_t1": answers, "id": list("aabb")})
    # 1 word of 2 and 2; both; none; 1 of 2 and 1: 2 * 1/2 * 1 / (3/2)
    assert word_overlap(table, problems)["f1_t1"] == pytest.approx((1 / 2 + 1 + 0 + 2 / 3) / 4)
