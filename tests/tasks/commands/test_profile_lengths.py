"""Token budgets: what the lengths of prompts and answers say of them."""

import pandas as pd
import yaml

from score_core.problems import read_problems
from tasks.commands.profile_lengths import answer_budget, main, prompt_budget, table
from tests.configs import ROOT, config, content
from tests.small_run import small_config


def answers(lengths, cut=0):
    rows = len(lengths)
    columns = {"extracted_t1": ["1"] * (rows - 1) + [None], "correct_t1": [True] + [False] * (rows - 1)}
    return pd.DataFrame({"tokens_t1": lengths, "truncated_t1": [n < cut for n in range(rows)], **columns})


def test_an_answer_budget_lets_all_but_a_hundredth_end():
    lengths = [*range(1, 199), 5000, 6000]  # two of 200
    assert answer_budget(answers(lengths), config()) == "conversation.max_new_tokens: 256"
    longer = answers([*range(1, 198), 900, 5000, 6000])
    assert answer_budget(longer, config()) == "conversation.max_new_tokens: 960"


def test_a_budget_at_which_answers_are_cut_is_too_small():
    settings = config(conversation={"max_new_tokens": 64})
    said = answer_budget(answers([64] * 50, cut=3), settings)
    assert "conversation.max_new_tokens: more than 64, at which 6% are cut" in said
    assert "--set conversation.max_new_tokens=128" in said


def test_a_budget_of_evaluation_alone_is_the_one_that_cuts_here():
    settings = config(conversation={"max_new_tokens": 32}, evaluation={"max_new_tokens": 64})
    said = answer_budget(answers([64] * 50, cut=3), settings)
    assert "evaluation.max_new_tokens: more than 64, at which 6% are cut" in said
    assert "--set evaluation.max_new_tokens=128" in said


def test_a_prompt_budget_holds_the_longest():
    assert prompt_budget([3, 64]) == "conversation.max_prompt_tokens: 64"
    assert prompt_budget([3, 65]) == "conversation.max_prompt_tokens: 128"


def test_shares_are_those_of_the_answers():
    lines = table([10, 20], answers([5, 6, 7, 8], cut=1), config()).splitlines()
    (row,) = [line.split() for line in lines if line.startswith("attempt 1")]
    assert row[2:] == ["6", "8", "8", "8", "25.0%", "75.0%", "25.0%"]


def test_the_command_measures_a_model(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    settings = small_config()
    whole = content() | settings.model_dump(mode="json", exclude={"stages"})
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(whole))
    folders = [str(small_run / "base"), "--data", str(small_run / "data"), "--params", str(params)]
    monkeypatch.setenv("SCORE_LAUNCH_STRATEGY", "ddp")  # of training: what is measured here runs alone
    monkeypatch.setenv("SCORE_LAUNCH_PROCESSES", "2")
    assert main([*folders, "--problems", "8"]) == 0
    said = capsys.readouterr().out
    assert "8 training problems answered" in said and "attempt 2" in said
    # x=12+34= takes 6 signs and the turns' tokens.
    assert "conversation.max_prompt_tokens: 64" in said and "conversation.max_new_tokens: 64" in said
    assert len(read_problems(small_run / "data", "train")) > 8
    assert main([*folders, "--problems", "0"]) == 2
