"""What a person sees who tries the models."""

import io
from pathlib import Path

import pandas as pd
import pytest
import yaml

from score_core.embedded.addition_model import build
from score_core.errors import UserError
from score_core.problems import Problem, write_problems
from tasks.commands.try_it import converse, main, show, side_by_side
from tests.configs import config, content

ROOT = Path(__file__).resolve().parents[3]
PROBLEM = Problem("1", "12345+67890=", ("080235",))


def row(first, second, right=(False, True)):
    return {"text_t1": first, "text_t2": second, "correct_t1": right[0], "correct_t2": right[1]}


def answering(problems):
    """Stands for two models: each says which it is and what it was asked."""
    return [
        pd.DataFrame([row(f"{name} hears", problem.problem) for problem in problems])
        for name in ("base", "stage2")
    ]


def test_attempts_stand_side_by_side_with_verdicts():
    lines = side_by_side(
        PROBLEM, [row("070235", "070235", (False, False)), row("070235", "080235")]
    ).splitlines()
    assert "12345+67890=" in lines[0]
    assert "080235" in lines[1]
    (second,) = [line for line in lines if line.startswith("attempt 2")]
    assert second.split() == ["attempt", "2:", "wrong", "attempt", "2:", "right"]
    assert lines[lines.index(second) + 1].split() == ["070235", "080235"]


def test_verdicts_of_the_models_stand_between_their_attempts():
    rows = [row("070235", "070235") | {"text_v1": "right"}, row("070235", "080235") | {"text_v1": "wrong"}]
    lines = side_by_side(PROBLEM, rows).splitlines()
    said = next(at for at, line in enumerate(lines) if line.startswith("its verdict on attempt 1"))
    assert lines[said + 1].split() == ["right", "wrong"]
    assert lines[said - 1].split() == ["070235", "070235"] and lines[said + 2].startswith("attempt 2")


def test_bytes_that_are_no_text_are_said_and_the_next_problem_is_asked(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1+\udcff\n3+4\n\n"))
    converse(answering, None)
    said = capsys.readouterr()
    assert said.err.startswith("error: '1+\\udcff': not a text (") and said.err.count("\n") == 1
    assert "base hears" in said.out and "3+4" in said.out


def test_unknown_answer_means_no_verdict():
    shown = side_by_side(Problem("typed", "1+1=", ()), [row("3", "3"), row("3", "2")])
    assert "right" not in shown
    assert "wrong" not in shown
    assert "Answer" not in shown


def test_long_and_hostile_text_stays_in_80_columns():
    text = "word " * 60 + "\n" + "x" * 100 + "\n\n\ttab\x1b[2J\x1b]0;title\x07"
    shown = side_by_side(PROBLEM, [row(text, ""), row("short", text)])
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "(nothing)" in shown


def test_asks_both_models_about_each_problem(capsys):
    show([PROBLEM, Problem("2", "11111+22222=", ("033333",))], answering)
    out = capsys.readouterr().out
    assert out.count("base hears") == out.count("stage2 hears") == 2
    assert out.index("12345") < out.index("11111")


@pytest.mark.parametrize("ending", ["\n", ""])
def test_conversation_goes_on_until_an_empty_line_or_the_end(monkeypatch, capsys, ending):
    monkeypatch.setattr("sys.stdin", io.StringIO("1+1=\n2+2=\n" + ending))
    converse(answering, "3+3=")
    out = capsys.readouterr().out
    assert out.count("Problem") == 2
    assert "For example: 3+3=" in out


def test_conversation_survives_a_problem_that_cannot_be_asked(monkeypatch, capsys):
    def picky(problems):
        if problems[0].problem == "bad":
            raise UserError("too long")
        return answering(problems)

    monkeypatch.setattr("sys.stdin", io.StringIO("bad\n1+1=\n"))
    converse(picky, None)
    shown = capsys.readouterr()
    assert "error: too long" in shown.err
    assert "1+1=" in shown.out


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters = content(
        data={"source": "addition"},
        model={"source": "addition", "steps": 2},
        conversation={
            "first": "first.txt",
            "retry": "retry.txt",
            "max_prompt_tokens": 32,
            "max_new_tokens": 7,
        },
        reward={"extractor": "last_number", "matcher": "integer"},
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(parameters))
    runtime = yaml.safe_load((ROOT / "runtime.yaml").read_text())
    runtime["launch"] |= {"strategy": "zero3", "processes": 2}  # of training: what is tried here runs alone
    (tmp_path / "runtime.yaml").write_text(yaml.safe_dump(runtime))
    return tmp_path


def test_missing_models_name_the_stage(checkout, capsys):
    assert main(["--problem", "1+1="]) == 2
    assert "models/base: no model here" in capsys.readouterr().err
    (checkout / "models" / "base").mkdir(parents=True)
    (checkout / "models" / "base" / "config.json").touch()
    assert main(["--problem", "1+1="]) == 2
    assert "dvc repro train_stage2" in capsys.readouterr().err


def test_both_kinds_of_problem_reach_real_models(checkout, capsys):
    """End to end with two embedded models that were hardly trained."""
    (checkout / "first.txt").write_text("{problem}=")
    (checkout / "retry.txt").write_text("check your answer")
    settings = config(data={"source": "addition"}, model={"source": "addition", "steps": 2})
    for folder in (checkout / "models" / "base", checkout / "models" / "stage2"):
        build(settings.model, settings.data, 1, folder)
    (checkout / "data" / "prepared").mkdir(parents=True)
    write_problems(checkout / "data" / "prepared", "test", [Problem("1", "12345+67890", ("080235",))])
    assert main(["--test", "5"]) == 0
    out, err = capsys.readouterr()
    assert "problem/s" not in err, "no bars between the answers"
    assert "080235" in out
    assert out.count("attempt 2: ") == 2
    assert main(["--problem", "11111+22222"]) == 0
    out = capsys.readouterr().out
    assert "attempt 2" in out
    assert "attempt 2:" not in out


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_count_of_test_problems_is_a_number_from_one(checkout, count):
    with pytest.raises(SystemExit) as stopped:
        main(["--test", count])
    assert stopped.value.code == 2
