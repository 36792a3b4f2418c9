"""Roll-outs: what is asked of the engine, and that everything said is judged where it was said."""

import numpy as np
import pytest
import torch

from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rewards.terms import TERMS
from score_core.rollout.roll_out import roll_out
from tests.configs import reward
from tests.score_core.rollout.speaker import END, Speaker, answer

SAMPLES, ATTEMPTS, MOST = 3, 2, 4
# Two digits each; some answers of `Speaker` are right.
PROBLEMS = [Problem(str(n), f"{n}+{10 * n}", (f"{(11 * n + 7) % 100:02}",)) for n in range(6)]


def noise(at: int) -> np.ndarray:
    """Numbers of the problem at an index alone, among them some that make a right answer."""
    drawn = np.random.default_rng(at).random((SAMPLES, ATTEMPTS, MOST))
    gold = PROBLEMS[at].references[0]
    drawn[at % SAMPLES, at % ATTEMPTS, :3] = int(gold[0]) / 10 + 0.05, int(gold[1]) / 10 + 0.05, 0.9
    return drawn


@pytest.fixture
def grader(monkeypatch):
    """Pays for the first token, the attempt's number for a right answer, and less for a cut one."""
    monkeypatch.setitem(TERMS, "first", lambda group: [ids[0] for ids in group.tokens])
    monkeypatch.setitem(
        TERMS, "attempt", lambda group: [group.attempt * float(right) for right in group.correct]
    )
    monkeypatch.setitem(TERMS, "cut", lambda group: group.truncated)
    terms = [
        {"name": "first", "weight": 0.25},
        {"name": "attempt", "weight": 1.0},
        {"name": "cut", "weight": -0.5},
    ]
    return Grader(reward(extractor="last_number", terms=terms))


def rolled(conversation, grader, batch_size, given=None, **options):
    engine, done = Speaker(), []
    found = roll_out(
        engine,
        conversation,
        grader,
        PROBLEMS,
        ATTEMPTS,
        batch_size=batch_size,
        samples=SAMPLES,
        noise=noise,
        given=given,
        progress=done.append,
        **options,
    )
    assert sum(done) == len(PROBLEMS)
    return found, engine.requests


GIVEN = {at: [[4 + k, 5, END] for k in range(SAMPLES)] for at in (1, 4)}


@pytest.mark.parametrize("given", [None, GIVEN], ids=["all sampled", "some given"])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_every_trajectory_is_its_problem_s_and_judged_as_such(
    make_conversation, tokenizer, grader, batch_size, given
):
    conversation = make_conversation(max_new_tokens=MOST)
    found, requests = rolled(conversation, grader, batch_size, given)
    assert max(request.count for request in requests) <= batch_size
    rewards, seen = [], set()
    for n, problem in enumerate(problem for problem in PROBLEMS for _ in range(SAMPLES)):
        at, k = divmod(n, SAMPLES)
        firsts = given[at][k] if given and at in given else answer(noise(at)[k, 0])
        ids = [firsts, answer(noise(at)[k, 1])]
        prompt, between = conversation.prompt(problem), conversation.continuation(ids[0], 1)
        assert found.trajectories.segments[n] == ((prompt, 0), (ids[0], 1), (between, 0), (ids[1], 2))
        texts = [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        assert found.texts[n] == texts
        right = [int(text) == int(problem.references[0]) for text in texts]
        cut = [one[-1] != END for one in ids]
        rewards.append([0.25 * ids[t][0] + (t + 1) * right[t] - 0.5 * cut[t] for t in (0, 1)])
        assert found.correct_NT[n].tolist() == right
        assert found.changed_NT[n].tolist() == [int(texts[0]) != int(texts[1])]
        assert found.trajectories.truncated_NT[n].tolist() == cut
        chances = [-noise(at)[k, t, : len(ids[t])] for t in (0, 1)]
        chances[0] = chances[0] * (0.0 if given and at in given else 1.0)
        row = found.trajectories.logp_NL[n][found.trajectories.attempt_NL[n] > 0]
        assert row.tolist() == pytest.approx([*chances[0], *chances[1]])
        assert found.trajectories.logp_NT[n].tolist() == pytest.approx([chance.sum() for chance in chances])
        seen.add(tuple(right))
    assert found.rewards_NT.tolist() == rewards
    assert not torch.equal(found.rewards_NT, found.correct_NT.float())
    assert {(True, False), (False, True), (False, False)} <= seen


@pytest.mark.parametrize("given", [None, GIVEN], ids=["all sampled", "some given"])
def test_the_engine_is_asked_in_batches_of_whole_problems(make_conversation, grader, given):
    found, requests = rolled(
        make_conversation(max_new_tokens=MOST), grader, 2 * SAMPLES + 1, given, temperature=0.6, top_p=0.9
    )
    assert [len(request.prompts) for request in requests] == [2, 2, 2]
    assert {(request.attempts, request.samples) for request in requests} == {(ATTEMPTS, SAMPLES)}
    assert {(request.temperature, request.top_p) for request in requests} == {(0.6, 0.9)}
    # Those with given first attempts are never sampled beside others.
    assert [request.given is not None for request in requests] == [False, False, given is not None]
    assert len(found.trajectories) == len(PROBLEMS) * SAMPLES


def test_without_noise_answers_are_greedy(make_conversation, grader):
    engine = Speaker()
    roll_out(engine, make_conversation(), grader, PROBLEMS, 1, batch_size=4)
    assert [request.noise for request in engine.requests] == [None, None]
    assert {(request.samples, request.attempts) for request in engine.requests} == {(1, 1)}
