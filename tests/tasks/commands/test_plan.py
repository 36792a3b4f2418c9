"""Plans of all profiles, made without a network, against published sizes and sums done by hand."""

import socket

import pytest

from score_core.errors import UserError
from tasks.commands.plan import main, plan, tell
from tasks.commands.profiles import profiles

# What the models' own pages say of their weights.
PUBLISHED = {
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-Math-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
}


@pytest.fixture(autouse=True)
def _without_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a plan asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_has_a_plan(profile, capsys):
    assert main([profile]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{profile}: ") and "nan" not in said
    for stage in ("download_data", "train_stage1", "train_stage2", "evaluate_final", "report"):
        assert f"\n{stage}" in said
    made = plan(profile, [])
    path = getattr(made.config.model, "path", None)
    if path is not None:
        assert made.shape.parameters == PUBLISHED[path]
        assert "1 GPU " in said and "GPU-hours" in said and "Assumed, not measured" in said


def test_tokens_are_those_of_a_sum_by_hand():
    made = plan("qa_nq", ["training.steps=10", "training.validate_every=5"], answer=100)
    stage1 = next(work for work in made.work if work.stage == "train_stage1")
    final = next(work for work in made.work if work.stage == "evaluate_final")
    # 10 steps of 8 * 5 dialogues; 3 validations (before, at 5, at 10) of 100 questions.
    assert made.sampled(stage1) == (10 * 40 + 3 * 100) * 2 * 100
    assert made.trained(stage1) == 10 * 40 * (0.15 * 2048 + 2 * (100 + 80))
    assert (made.sampled(final), made.trained(final)) == (500 * 2 * 100, 0)


def test_seconds_are_those_of_a_sum_by_hand():
    made = plan("qa_nq", ["training.steps=10", "training.validate_every=5"], answer=100)
    stage1 = next(work for work in made.work if work.stage == "train_stage1")
    fit = made.fit(1)
    # 28 layers at 1 ms are slower than reading 3 GB of weights at 1.7 TB/s; 2 * 256 tokens a round.
    assert made.sampling_seconds(stage1, fit) == pytest.approx((10 + 3) * 2 * 256 * 0.028)
    flop = 6 * 1_543_714_304 * made.trained(stage1)
    assert made.training_seconds(stage1, fit) == pytest.approx(flop / (0.15 * 989e12))
    four = made.fit(4)
    assert made.training_seconds(stage1, four) == pytest.approx(made.training_seconds(stage1, fit) / 4)


def test_games_of_a_policy_that_judges_itself_are_counted():
    """96 prompts of 5 answers: 20 games each in both orders, 10 in one; of 500 tokens."""
    made, once = (plan("sr_r1", [f"reward.self_judge.both_orders={both}"]) for both in ("true", "false"))
    stage, fit = made.work[1], made.fit(1)
    assert (stage.games, once.work[1].games) == (96 * 20, 96 * 10)
    saved = made.sampling_seconds(stage, fit) - once.sampling_seconds(once.work[1], fit)
    rows, token = fit.batches.rows, made._token(fit.batches.rows)
    assert rows < 96 * 10 and saved >= 480 * 500 * (96 * 10 // rows) * token * 0.99
    assert "1,920 games" in tell(made) and made.work[-1].rounds == ((1, 500),)


def test_samples_count_and_large_batches_take_longer():
    once, eight = (plan("qwen_math", [f"evaluation.samples={k}"]).work[-1] for k in (1, 8))
    assert (once.dialogues, eight.dialogues) == (500, 4000)
    made = plan("qwen_math", [])
    assert made.sampling_seconds(eight, made.fit(1)) > 7 * made.sampling_seconds(once, made.fit(1))


def test_what_does_not_fit_or_share_out_is_said_with_the_reason():
    said = tell(plan("math500_trl", []))
    assert "4 GPUs  not so: 2 prompts a step of stage1 are not shared by 4" in said
    small = tell(plan("paper_math", ["conversation.max_new_tokens=15000"]))
    assert "not so: " in small and "not one dialogue fits" in small


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["qwen_maths"], "did you mean qwen_math?"),
        (["qwen_math", "evaluation.sample=2"], "qwen_math"),
        (["qwen_math", "training.steps=many"], "found 'many'"),
        (["qwen_math", "model.path=who/knows"], "the sizes of who/knows are not known without a network"),
        (
            ["qwen_math", "data.path=who/knows"],
            "data.sizes.test: how many rows who/knows has is not known offline",
        ),
        (
            ["math500_trl", "conversation.max_new_tokens=2048"],
            "can reach about 6076 tokens and the context holds 4096",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, says, capsys):
    name, *overrides = arguments
    assert main([name, *(word for one in overrides for word in ("--set", one))]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_model_that_no_sizes_are_known_of_is_a_user_error():
    with pytest.raises(UserError, match=r"known_sizes\.yaml"):
        plan("gsm8k", ["model.path=who/knows"])
