"""A hard set: the problems that a model answers wrongly, and no others."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest

from score_core.algorithms import SETTINGS
from score_core.config.data import ArithmeticData
from score_core.config.parsing import parse_config
from score_core.config.schema import Config
from score_core.data.sources import read_source
from score_core.errors import UserError
from score_core.evaluation.evaluate import Evaluator
from score_core.files import parse_yaml
from score_core.problems import read_problems
from tasks.commands.keep_failures import exercises, failures, greedy, main
from tasks.commands.profiles import compose
from tests.configs import ROOT
from tests.small_run import RUNTIME, evaluate, small_config


def test_what_is_wrong_greedily_is_kept_in_order(small_run: Path) -> None:
    problems = read_problems(small_run / "data", "test")
    settings = greedy(small_config(evaluation={"temperature": 1.5, "samples": 3, "batch_size": 7}))
    wrong = [
        problem
        for problem, text in zip(
            problems,
            evaluate(small_run / "base", problems, small_config(), RUNTIME)["text_t1"],
            strict=True,
        )
        if not (text.isdigit() and int(text) == sum(map(int, problem.problem.split("+"))))
    ]
    assert 2 < len(wrong) < len(problems)
    few = len(wrong) - 1  # how many there are hangs on the processor that trained the model
    kept, answered = failures(Evaluator(small_run / "base", settings, RUNTIME), iter(problems), few)
    assert kept == wrong[:few]
    assert answered == problems.index(wrong[few - 1]) + 1
    with pytest.raises(UserError, match=rf"answers only {len(wrong)} wrongly, and 64 are asked for"):
        failures(Evaluator(small_run / "base", settings, RUNTIME), iter(problems), 64)


def test_the_folder_is_a_source_of_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SCORE_LAUNCH_STRATEGY", "zero3")  # of training: what is asked here runs alone
    monkeypatch.setenv("SCORE_LAUNCH_PROCESSES", "2")
    output = tmp_path / "made" / "hard"
    command = [
        str(output),
        "--set",
        "smoke=yes",
        "--profile",
        "arithmetic_hard",
        "--train",
        "12",
        "--test",
        "4",
    ]
    assert main(command) == 0
    # A tiny model with random weights is never right.
    said = capsys.readouterr().out
    assert "16 of 16 answers were wrong (100%)" in said
    source = read_source(advised("arithmetic_hard", said).data)
    rows = source.train.rows + source.test.rows
    assert (len(source.train.rows), len({row.problem for row in rows})) == (12, 16)
    for row in rows:
        _, _, first, _, second = row.problem.rstrip("?").split()
        assert row.answers == (str(int(first) - int(second)),) and len(first) == len(second) == 5
    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["model"]["source"], manifest["wrong"], manifest["digits"]) == ("tiny", 16, 5)
    assert main(command) == 2
    assert "exists and is not replaced" in capsys.readouterr().err
    assert main([str(tmp_path / "other"), *command[1:], "--digits", "99"]) == 2


def advised(profile: str, said: str) -> Config:
    """A profile's configuration, changed as the command has advised."""
    whole = parse_yaml(compose([f"profile={profile}"]))
    without, states = re.search(r"these lines, and data without ([^:]*):\n(.*)", said, re.DOTALL).groups()
    for section, values in parse_yaml(states).items():
        whole[section] |= values
    for name in re.split(", | and ", without):
        del whole["data"][name]
    return parse_config(whole, SETTINGS, profile)


def test_exercises_never_come_twice():
    sizes = {"train": 1, "validation": 1, "test": 1}
    settings = ArithmeticData(source="arithmetic", operation="addition", operands=2, digits=1, sizes=sizes)
    drawn = [problem.problem for problem in islice(exercises(settings, 1), 81)]
    assert len(set(drawn)) == 81  # all there are
