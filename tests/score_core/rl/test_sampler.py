"""The samples of a step: whose noise, from which model, and how many first attempts are given."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from score_core.algorithms import make_algorithm
from score_core.config.reward import SelfJudge as Settings
from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rl.batches import PromptSchedule
from score_core.rl.sampler import Stage, StepSampler
from score_core.rl.stopwatch import Stopwatch
from score_core.rollout.self_judge import SelfJudge
from tests.score_core.rollout.speaker import Speaker
from tests.small_run import SELF_JUDGE, digits_are_verdicts, small_config

PROBLEMS = [Problem(str(n), f"{n}+1", (str(n + 1),)) for n in range(5)]
K = 4


@pytest.fixture
def make_sampler(make_conversation):
    def make(seed: int = 7, name: str = "test", **settings: object) -> StepSampler:
        config = small_config(stage2=settings)
        stage = Stage(
            name=name,
            seed=seed,
            algorithm=make_algorithm(config.stage("stage2")),
            conversation=make_conversation(),
            grader=Grader(config.reward),
            problems=PROBLEMS,
            validation=PROBLEMS,
            engine=Speaker(),
            engine_name="speaker",
            tolerated_gap=1.0,
            sampling_batch_size=1024,
        )
        return StepSampler(stage, PromptSchedule([range(len(PROBLEMS))], 400, seed, name), Stopwatch())

    return make


def draw(sampler: StepSampler, positions: range):
    return sampler.draw(positions, lambda: nullcontext("policy"), lambda: nullcontext("reference"))


def noises(sampler: StepSampler) -> np.ndarray:
    """All that the engine has been given so far, a row a trajectory and attempt."""
    return np.concatenate(
        [one.noise.reshape(-1, one.noise.shape[-1]) for one in sampler.stage.engine.requests]
    )


def test_no_two_attempts_ever_see_the_same_noise(make_sampler):
    """Not those of a problem's samples, of its next turn in the run, of other uses, stages or seeds."""
    samplers = [make_sampler(offline_first_attempts=0.5), make_sampler(name="other"), make_sampler(seed=8)]
    for sampler in samplers:
        for start in range(0, 40, 8):
            draw(sampler, range(start, start + 8))
    rows = np.concatenate([noises(sampler) for sampler in samplers])
    assert len(rows) > 3 * 40 * K * 2, "40 problems, two attempts, and some first ones of the reference"
    assert len(np.unique(rows)) == rows.size


def test_a_position_draws_the_same_whatever_comes_with_it(make_sampler):
    together, apart = make_sampler(offline_first_attempts=0.5), make_sampler(offline_first_attempts=0.5)
    whole, given = draw(together, range(16))
    parts = [draw(apart, range(start, start + 4)) for start in range(0, 16, 4)]
    assert whole.texts == [texts for part, _ in parts for texts in part.texts]
    assert given.tolist() == [flag for _, flags in parts for flag in flags.tolist()]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_the_share_of_given_first_attempts_is_the_settings(make_sampler, share):
    sampler = make_sampler(offline_first_attempts=share)
    rollout, given_N = draw(sampler, range(400))
    assert len(rollout.trajectories) == len(given_N) == 400 * K
    by_problem = given_N.reshape(400, K)
    assert (by_problem.all(1) == by_problem.any(1)).all(), "all of a problem's samples, or none"
    spread = (share * (1 - share) / 400) ** 0.5
    assert abs(float(given_N.double().mean()) - share) <= 4 * spread


def test_given_first_attempts_are_the_reference_s_own(make_sampler):
    sampler = make_sampler(offline_first_attempts=0.5, temperature=0.7)
    engine = sampler.stage.engine
    rollout, given_N = draw(sampler, range(20))
    assert engine.loaded == ["reference", "policy"]
    asked, *rest = engine.requests
    assert (asked.attempts, asked.given, asked.temperature) == (1, None, 0.7)
    assert {(one.attempts, one.temperature) for one in rest} == {(2, 0.7)}
    handed = next(one for one in rest if one.given is not None)
    firsts = [row[0] for row, given in zip(rollout.trajectories.attempts, given_N, strict=True) if given]
    assert handed.given == firsts
    alone = Speaker().sample(sampler.stage.conversation, asked)
    assert firsts == [pieces[1][0] for pieces in alone.segments], "in the order of their problems"


def judging(sampler: StepSampler) -> StepSampler:
    """The same with a policy that judges itself."""
    conversation = sampler.stage.conversation
    judge = SelfJudge(Settings(**SELF_JUDGE), conversation, conversation.longest(2))
    stage = replace(sampler.stage, self_judge=judge)
    return StepSampler(stage, sampler.schedule, sampler.stopwatch)


def test_games_have_noise_of_their_own_by_position(make_sampler):
    together, apart = judging(make_sampler()), judging(make_sampler())
    with digits_are_verdicts():
        whole, _ = draw(together, range(8))
        parts = [draw(apart, range(start, start + 2))[0] for start in range(0, 8, 2)]
    assert whole.rewards_NT.tolist() == [row for part in parts for row in part.rewards_NT.tolist()]
    assert len({game.score for games in whole.games for game in games}) == 4
    rows = np.concatenate([one.noise.ravel() for one in together.stage.engine.requests])
    assert len(np.unique(rows)) == rows.size


def test_the_reference_is_not_opened_where_nothing_is_given(make_sampler):
    sampler = make_sampler()
    draw(sampler, range(8))
    assert sampler.stage.engine.loaded == ["policy"]


def test_problems_come_as_the_schedule_says(make_sampler):
    sampler = make_sampler()
    rollout, _ = draw(sampler, range(3, 11))
    prompts = [pieces[0][0] for pieces in rollout.trajectories.segments]
    expected = [
        sampler.stage.conversation.prompt(PROBLEMS[sampler.schedule.order[at]]) for at in range(3, 11)
    ]
    assert prompts == [ids for ids in expected for _ in range(K)]
