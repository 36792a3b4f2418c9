"""Repair: the model is shown a wrong program as its own, and what it makes of that is judged."""

from pathlib import Path

import pytest

from score_core.answers.code_tests import Suite
from score_core.embedded import tiny_model
from score_core.evaluation.evaluate import Evaluator
from score_core.evaluation.passed_tests import passed_tests
from score_core.evaluation.repair import repair, summarise_repair
from score_core.problems import Problem
from score_core.rollout.engines import ENGINES
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Request, Sampled
from tests.configs import config, runtime
from tests.sandbox import needs_sandbox

SUITES = [
    Suite(("f",), (f"assert f(1) == {n}",), f"def f(x): return {n}", wrong=f"def f(x): return -{n}")
    for n in range(1, 6)
]
PROBLEMS = [Problem(str(n), f"return {n}", (one.as_text(),)) for n, one in enumerate(SUITES)]


class Corrects(BuiltinEngine):
    """Samples as the built-in engine does; then every other second attempt is replaced by the solution."""

    def sample(self, conversation, request: Request) -> Sampled:
        sampled = super().sample(conversation, request)
        assert request.given is not None and request.attempts == 2
        dialogues = []
        for prompt, *pieces in sampled.segments:
            suite = next(s for s in SUITES if conversation.attempt(s.wrong_answer) == pieces[0][0])
            right = conversation.attempt(suite.wrong_answer.replace("-", ""))
            at = SUITES.index(suite)
            dialogues.append((prompt, *pieces[:-1], (right, 2) if at % 2 == 0 else pieces[-1]))
        logp = [[[0.0] * len(ids) for ids, attempt in pieces if attempt] for pieces in dialogues]
        return Sampled(dialogues, sampled.truncated, logp)


@needs_sandbox
@pytest.mark.parametrize("batch_size", [2, 8])
def test_wrong_programs_are_first_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    tiny_model.build("qwen2", 1, tmp_path / "model")
    monkeypatch.setitem(ENGINES, "corrects", Corrects)
    settings = config(
        reward={"extractor": "code_block", "matcher": "code_tests"},
        conversation={"max_new_tokens": 8},
        evaluation={"batch_size": batch_size},
    )
    evaluator = Evaluator(tmp_path / "model", settings, runtime(threads=1, engine="corrects"))
    table = repair(evaluator, PROBLEMS)
    assert list(table["text_t1"]) == [suite.wrong_answer for suite in SUITES]
    assert not table["correct_t1"].any()
    assert list(table["correct_t2"]) == [True, False, True, False, True]
    metrics = summarise_repair(table)
    low, high = metrics["ci95"]["repair_accuracy"]
    assert (metrics["repair_n"], metrics["repair_accuracy"], metrics["repair_unchanged"]) == (5, 0.6, 0.0)
    assert low < 0.6 < high
    shares = passed_tests(table, PROBLEMS, settings.reward)
    assert shares == {"tests_passed_t1": 0.0, "tests_passed_t2": pytest.approx(0.6)}
