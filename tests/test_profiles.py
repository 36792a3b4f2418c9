"""Every profile at toy size as far as its own files decide: data, base model, prompts, verdicts.

What comes after is the same for all of them; `make smoke profile=NAME` runs it, and `profile=all` for each.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from score_core.algorithms import SETTINGS
from score_core.config.parsing import parse_config
from score_core.files import parse_yaml
from score_core.problems import Problem, read_problems
from score_core.rewards.grader import Graded, Grader
from score_core.rewards.group import Ungraded
from score_core.rollout.conversation import load_conversation
from tasks import check, download_data, prepare_base_model
from tasks.commands.profiles import compose, profiles
from tests.configs import ROOT, runtime
from tests.sandbox import needs_sandbox

# How each extractor's prompts ask for an answer.
FORMS = {
    "last_number": "{gold}",
    "gsm8k_hash": "<think>so it is</think><answer>{gold}</answer>",
    "marker": "So it is.\n{marker} {gold}",
    "boxed": "so \\boxed{{{gold}}}",
}


def in_form(config, problem: Problem) -> str:
    name = config.reward.extractor
    if name == "math_final_answer":
        tagged = "<answer>" in Path(config.conversation.first).read_text()
        name = "gsm8k_hash" if tagged else "boxed"
    return FORMS[name].format(gold=problem.references[0], marker=config.reward.marker)


def graded(grader: Grader, problems: Sequence[Problem], texts: Sequence[str]) -> list[Graded]:
    groups = [Ungraded(one, 1, [text], [[1]], [False]) for one, text in zip(problems, texts, strict=True)]
    return [row[0] for row in grader.grade(groups)]


@pytest.mark.parametrize(
    "profile", [pytest.param(one, marks=needs_sandbox if "code" in one else ()) for one in profiles()]
)
def test_a_profile_is_prepared_and_its_answers_are_judged(profile, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = compose([f"profile={profile}", "smoke=yes"])
    config = parse_config(parse_yaml(text), SETTINGS, profile)
    check.run(argparse.Namespace(), config, runtime(threads=1))
    data, base = tmp_path / "data", tmp_path / "base"
    download_data.run(argparse.Namespace(output=data), config, runtime(threads=1))
    prepare_base_model.run(argparse.Namespace(output=base), config, runtime(threads=1))
    problems = {split: read_problems(data, split) for split in ("train", "validation", "test")}
    attempts = max(config.evaluation.attempts, *(stage.attempts for stage in config.stages.values()))
    conversation = load_conversation(base, config.conversation, attempts)
    for split in problems.values():
        conversation.check_prompts(split)
    grader = Grader(config.reward)
    if config.reward.matcher == "code_tests":
        return
    asked = problems["test"]
    for expected, texts in (
        (True, [in_form(config, one) for one in asked]),
        (False, ["no idea"] * len(asked)),
    ):
        assert [one.correct for one in graded(grader, asked, texts)] == [expected] * len(asked), texts
    assert tuple(label for label, _ in asked[0].labels) == config.evaluation.by
    shots = config.conversation.few_shot
    for line in Path(shots).read_text().splitlines() if shots else ():
        (shot,) = graded(grader, [Problem("shot", "?", ("nothing",))], [json.loads(line)["answer"]])
        assert shot.extracted is not None, line
