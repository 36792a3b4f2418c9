"""Dialogues with verdicts: how a verdict is read, where a dialogue ends, and what then stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from score_core.embedded.addition_model import ASSISTANT, CHECK, END, USER, VERIFY, make_tokenizer
from score_core.errors import UserError
from score_core.models.folders import load_model, load_tokenizer
from score_core.problems import Problem, read_problems
from score_core.rewards.grader import Graded, Grader
from score_core.rewards.terms import TERMS
from score_core.rl.logprobs import add_token_scoring, score
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Request
from score_core.rollout.engines.vllm import VllmEngine
from score_core.rollout.engines.vllm_server import VllmServer
from score_core.rollout.roll_out import Rollout, roll_out
from score_core.rollout.verification import graded_verdict, judgement, standing
from tests.configs import reward
from tests.small_run import small_config, untied
from tests.stand_in import StandIn

SAMPLES = 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("right", "right"),
        ("Wrong.", "wrong"),
        ("Verdict: right", "right"),
        ("The second step does not hold.\n\n**Verdict: Wrong**\n", "wrong"),
        ("right\nwrong", "wrong"),
        ('"right"', "right"),
        ("", None),
        ("The answer is right", None),  # or is it "I cannot say that the answer is right"?
        ("not right", None),
        ("right or wrong", None),
        ("wrong\nor so", None),
        ("rightwrong", None),
        ("139", None),
        ("wrong" + " " * 200 + "not", None),
    ],
)
def test_a_verdict_is_a_last_line_of_one_word(text: str, expected: str | None) -> None:
    assert judgement(text) == expected


def test_a_verdict_earns_by_saying_what_is_so() -> None:
    assert graded_verdict("right", correct=True) == Graded("right", True, 1.0)
    assert graded_verdict("wrong", correct=False) == Graded("wrong", True, 1.0)
    assert graded_verdict("wrong", correct=True) == Graded("wrong", False, 0.0)
    assert graded_verdict("right", correct=False) == Graded("right", False, 0.0)
    for correct in (True, False):
        assert graded_verdict("perhaps", correct) == Graded(None, False, 0.0)


def test_what_did_not_take_place_is_the_last_of_its_kind() -> None:
    assert standing(["y1", "v1", "y2", "v2", "y3"]) == ["y1", "v1", "y2", "v2", "y3"]
    assert standing(["y1", "v1", None]) == ["y1", "v1", "y1"]
    assert standing(["y1", "v1", "y2", "v2", None]) == ["y1", "v1", "y2", "v2", "y2"]
    assert standing(["y1", "v1", None, None, None]) == ["y1", "v1", "y1", "v1", "y1"]


# ------------------------------------------------------------------------------------- what is said


@pytest.fixture
def talk(make_conversation: Callable[..., Conversation]) -> Conversation:
    return make_conversation(verify=VERIFY, revise=CHECK, with_tokenizer=make_tokenizer(verdicts=True))


def test_instructions_alternate_and_only_wrong_goes_on(talk: Conversation) -> None:
    ids = talk.tokenizer
    asked = {text: ids(f"{USER}{text}{END}{ASSISTANT}").input_ids for text in (VERIFY, CHECK)}
    end = ids.eos_token_id
    answer, wrong, right = (ids(text).input_ids for text in ("123", "wrong", "right"))
    assert talk.continuation([*answer, end], 1) == talk.continuation([*answer, end], 3) == asked[VERIFY]
    assert talk.continuation([*wrong, end], 2) == talk.continuation([*wrong, end], 4) == asked[CHECK]
    assert talk.continuation(answer, 1) == [end, *asked[VERIFY]]  # cut at its limit
    for verdict in (right, answer, [*right, *wrong], []):
        assert talk.continuation([*verdict, *[end] * bool(verdict)], 2) == []
    # A word of a verdict in an attempt, and nothing after nothing.
    assert talk.continuation([*right, end], 1) == asked[VERIFY]
    assert talk.continuation([], 3) == []
    assert VERIFY.split()[0] in talk.dialogue and "check" in talk.dialogue


def test_turns_their_names_and_their_tokens(
    talk: Conversation, make_conversation: Callable[..., Conversation]
) -> None:
    assert [talk.turns(attempts) for attempts in (1, 2, 3)] == [1, 3, 5]
    assert talk.labels(5) == ["t1", "v1", "t2", "v2", "t3"]
    verify, revise = map(len, talk.instructions)
    assert talk.longest(3) == 1024 + 5 * 6 + 2 * (verify + revise)
    plain = make_conversation()
    assert plain.turns(3) == 3 and plain.labels(3) == ["t1", "t2", "t3"]
    with pytest.raises(UserError, match=r"2 attempts can reach 10\d\d tokens .* each attempt or verdict 6"):
        talk.check_fits(2, talk.longest(2) - 1)


def test_prompts_that_are_not_there_are_asked_for(make_conversation: Callable[..., Conversation]) -> None:
    plain = make_conversation()
    with pytest.raises(
        UserError, match=r"conversation.verify: is null, and dialogues .* prompts/boxed/verify"
    ):
        Conversation(plain.settings, plain.tokenizer, plain.end_ids, verifies=True)
    with pytest.raises(UserError, match=r"revise: is empty; expected the instruction"):
        make_conversation(verify="Is it so?", revise=" ")
    with pytest.raises(UserError, match=r"evaluation.verifies: needs the prompts conversation.verify"):
        small_config(evaluation={"verifies": True}, conversation={"revise": None})


# ------------------------------------------------------------------------------------- roll-outs


def noise(at: int, turns: int = 3) -> np.ndarray:
    return np.random.default_rng(at).random((SAMPLES, turns, 5))


@pytest.fixture
def rolled(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rollout]:
    """Roll-outs of the base model that was taught verdicts; pays for being right, and how many answered."""
    monkeypatch.setitem(TERMS, "members", lambda group: [float(len(group.texts))] * len(group.texts))
    terms = [{"name": "match", "weight": 1.0}, {"name": "members", "weight": 10.0}]
    folder = small_run / "verifying/base"
    tokenizer = load_tokenizer(folder)
    said = Conversation(small_config().conversation, tokenizer, [tokenizer.eos_token_id], verifies=True)
    engine = BuiltinEngine()
    engine.load(load_model(folder))
    grader = Grader(reward(extractor="last_number", terms=terms))

    def roll(problems: list[Problem], attempts: int = 2, **options: Any) -> Rollout:
        options = {"batch_size": 1000, "samples": SAMPLES, **options}

        def draw(at: int) -> np.ndarray:
            return noise(int(problems[at].id, 16) % 1000, 2 * attempts - 1)[: options["samples"]]

        return roll_out(engine, said, grader, problems, attempts, noise=draw, **options)

    return roll


@pytest.fixture
def problems(small_run: Path) -> list[Problem]:
    return read_problems(small_run / "data", "train")[:16]


@pytest.mark.parametrize("attempts", [2, 3])
def test_only_those_that_said_wrong_are_revised_and_others_stand(
    rolled: Callable[..., Rollout], problems: list[Problem], small_run: Path, attempts: int
) -> None:
    found = rolled(problems, attempts)
    tokenizer = load_tokenizer(small_run / "verifying/base")
    lengths = found.trajectories.lengths_NT.tolist()
    assert found.labels == ["t1", "v1", "t2", "v2", "t3"][: 2 * attempts - 1]
    seen = set()
    for n, pieces in enumerate(found.trajectories.segments):
        gold = int(problems[n // SAMPLES].references[0])
        said = [ids for ids, turn in pieces if turn]
        stands, verdicts, going = None, found.verdicts[n], True
        for turn, ids in enumerate(said):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            assert (len(ids) > 0) == (lengths[n][turn] > 0) == going
            if turn % 2:
                agrees = text in ("right", "wrong") and (text == "right") == stands[1]
                if going:
                    assert verdicts[turn][1:] == (agrees, float(agrees))
                going = going and text == "wrong"
            else:
                if going:
                    right = text.isdigit() and int(text) == gold
                    alike = [row for row in lengths[n // SAMPLES * SAMPLES :][:SAMPLES] if row[turn]]
                    stands = text, right, right + 10.0 * len(alike)
                assert (found.texts[n][turn], *verdicts[turn][1:]) == stands
        seen.add((going, bool(lengths[n][2]), stands[1]))
    assert len(seen) >= 4
    changed = [[a[0] != b[0] for a, b in zip(row[:-2:2], row[2::2], strict=True)] for row in found.verdicts]
    assert found.changed_NT.tolist() == changed


def test_what_is_said_hangs_on_no_neighbour(rolled: Callable[..., Rollout], problems: list[Problem]) -> None:
    together, apart = rolled(problems), [rolled([one]) for one in problems]
    assert list(together.trajectories.segments) == [row for one in apart for row in one.trajectories.segments]


def test_a_batch_whose_dialogues_have_all_ended_is_done(
    rolled: Callable[..., Rollout], problems: list[Problem]
) -> None:
    """Alone, dialogues that end early are nobody's neighbours."""
    together = rolled(problems, 3).trajectories.segments
    found = [rolled([one], 3, samples=1).trajectories.segments[0] for one in problems]
    assert found == [together[row] for row in range(0, len(together), SAMPLES)]
    assert len({sum(bool(ids) for ids, turn in pieces if turn) for pieces in found}) > 1


def test_the_engine_says_how_likely_each_token_was(
    rolled: Callable[..., Rollout], problems: list[Problem], small_run: Path
) -> None:
    """As the model scores the whole dialogues, those that had ended beside those that went on."""
    found = rolled(problems).trajectories
    model = load_model(small_run / "verifying/base")
    add_token_scoring(model)
    with torch.no_grad():
        scored = score(model, found, 1.0).logp_P
    torch.testing.assert_close(found.logp_P, scored, rtol=1e-4, atol=1e-4)
    held_NT = found.lengths_NT > 0
    assert held_NT[:, :2].all() and 0 < int(held_NT[:, 2].sum()) < len(found)
    assert not found.truncated_NT[~held_NT].any() and not found.logp_NT[~held_NT].any()


def test_a_server_is_not_asked_where_a_dialogue_has_ended(
    small_run: Path, problems: list[Problem], tmp_path: Path
) -> None:
    folder = small_run / "verifying/base"
    model, tokenizer = untied(load_model(folder)), load_tokenizer(folder)
    model.config.save_pretrained(tmp_path / "config")
    said = Conversation(small_config().conversation, tokenizer, [tokenizer.eos_token_id], verifies=True)
    request = Request([said.prompt(one) for one in problems], said.turns(2))
    own = BuiltinEngine()
    own.load(model)
    expected = own.sample(said, request)
    with StandIn(tmp_path / "config") as server:
        engine = VllmEngine(VllmServer(server.address, 20.0), tmp_path, "float32", 1e-4)
        engine.load(model)
        before = len(server.asked)
        found = engine.sample(said, request)
        asked = [body["prompt"][0] for body in server.asked[before:] if body["prompt_logprobs"] is None]
    assert found.segments == expected.segments and found.truncated == expected.truncated
    revised = sum(bool(pieces[-1][0]) for pieces in found.segments)
    assert 0 < revised < len(problems)
    ours = [ids for ids in asked if ids[: len(request.prompts[0])] in request.prompts]
    assert len(ours) == 2 * len(problems) + revised
