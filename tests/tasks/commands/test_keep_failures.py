"""A hard set: the problems that a model answers wrongly, and no others."""

import json
from itertools import islice
from pathlib import Path

import pytest

from score_core.config.data import ArithmeticData
from score_core.data.sources import read_source
from score_core.errors import UserError
from score_core.evaluation.evaluate import Evaluator
from score_core.problems import read_problems
from tasks.commands.keep_failures import exercises, failures, greedy, main
from tests.configs import LOCAL_DATA, ROOT, config
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
    assert 10 < len(wrong) < len(problems)
    kept, answered = failures(Evaluator(small_run / "base", settings, RUNTIME), iter(problems), 10)
    assert kept == wrong[:10]
    assert answered == problems.index(wrong[9]) + 1
    with pytest.raises(UserError, match=rf"answers only {len(wrong)} wrongly, and 64 are asked for"):
        failures(Evaluator(small_run / "base", settings, RUNTIME), iter(problems), 64)


def test_the_folder_is_a_source_of_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
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
    assert "16 of 16 answers were wrong (100%)" in capsys.readouterr().out
    columns = {"id": None, "problem": "question", "answer": "answer"}
    source = read_source(config(data={**LOCAL_DATA, "path": str(output), "columns": columns}).data)
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


def test_exercises_never_come_twice():
    sizes = {"train": 1, "validation": 1, "test": 1}
    settings = ArithmeticData(source="arithmetic", operation="addition", operands=2, digits=1, sizes=sizes)
    drawn = [problem.problem for problem in islice(exercises(settings, 1), 81)]
    assert len(set(drawn)) == 81  # all there are
