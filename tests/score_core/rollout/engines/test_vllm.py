"""The engine that samples with a server, over HTTP, against the built-in one."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from score_core.errors import UserError
from score_core.models.handover import PREFIX
from score_core.rollout.engines import ENGINES, engine_name, make_engine, sampled_by, vllm_server
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Engine, Request, Sampled
from score_core.rollout.engines.vllm import SEEDS, VllmEngine
from score_core.rollout.engines.vllm_server import Question, VllmServer
from tests.configs import runtime
from tests.score_core.models.test_handover import adapted, change_adapter
from tests.stand_in import Handler, StandIn

PROMPTS = [[2, 9, 8, 14, 7], [2, 7], [2, 11, 12, 13, 14, 4, 15, 15], [2, 5, 3]]
LIMIT = 6


@pytest.fixture
def conversation(make_conversation: Any) -> Any:
    return make_conversation(end_ids=[1, 5, 6, 7], max_new_tokens=LIMIT)


@pytest.fixture
def stand_in(make_model: Callable[..., Any], tmp_path: Path) -> Iterator[StandIn]:
    """Started as the stage starts one: on a configuration without weights, for an untied model."""
    make_model(tied=False).config.save_pretrained(tmp_path / "served")
    with StandIn(tmp_path / "served") as server:
        yield server


@pytest.fixture
def taking(stand_in: StandIn) -> StandIn:
    """The same, started for adapters of rank 4."""
    stand_in.rank = 4
    return stand_in


@pytest.fixture
def engine(stand_in: StandIn, tmp_path: Path) -> VllmEngine:
    return VllmEngine(VllmServer(stand_in.address, 20.0), tmp_path, "float32", 1e-4)


def builtin(model: Any, conversation: Any, request: Request) -> Sampled:
    engine = BuiltinEngine()
    engine.load(model)
    return engine.sample(conversation, request)


def noise(samples: int, attempts: int) -> np.ndarray:
    return np.random.default_rng(0).random((len(PROMPTS) * samples, attempts, LIMIT))


def same(found: Sampled, expected: Sampled) -> None:
    assert found.segments == expected.segments
    assert found.truncated == expected.truncated
    for ours, theirs in zip(found.logp, expected.logp, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_greedy_answers_are_the_built_in_ones(
    make_model: Any, conversation: Any, engine: VllmEngine, tied: bool, lora: bool, attempts: int
) -> None:
    model = make_model(tied=tied)
    model = adapted(model) if lora else model
    engine.load(model)
    request = Request(PROMPTS, attempts)
    same(engine.sample(conversation, request), builtin(model, conversation, request))
    assert engine.device == model.device


def test_sampled_answers_and_their_log_probabilities(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn
) -> None:
    model = make_model()
    engine.load(model)
    stand_in.asked.clear()
    u = noise(3, 2)
    found = engine.sample(conversation, Request(PROMPTS, 2, 3, u, 1.3))
    # The stand-in's noise follows from the seed, so the built-in sampler can be given the same.
    seeds = [[int(u[row - row % 3, 0, 0] * SEEDS) + row % 3, int(u[row, 1, 0] * SEEDS)] for row in range(12)]
    drawn = np.stack([[np.random.default_rng(seed).random(LIMIT) for seed in row] for row in seeds])
    same(found, builtin(model, conversation, Request(PROMPTS, 2, 3, drawn, 1.3)))
    assert len({str(dialogue) for dialogue in found.segments}) > 6
    said = [body for body in stand_in.asked if body["prompt_logprobs"] is None]
    assert sorted(body["n"] for body in said) == [1] * 12 + [3] * 4
    # The second turn continues the first: what was read for it is what the server has read.
    firsts = {tuple(ids) for pieces in found.segments for ids in [pieces[0][0] + pieces[1][0]]}
    later = [body["prompt"][0] for body in said if body["n"] == 1]
    assert all(any(tuple(ids[: len(first)]) == first for first in firsts) for ids in later)
    wanted = {"temperature": 1.3, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    wanted |= {"presence_penalty": 0.0, "frequency_penalty": 0.0, "ignore_eos": True}
    assert all(body.items() >= wanted.items() for body in said)


def test_given_first_attempts_are_not_sampled(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn
) -> None:
    model = make_model()
    engine.load(model)
    given = [[9, 10, 1], [9], [8, 8], [7]]
    request = Request(PROMPTS, 2, given=given)
    found = engine.sample(conversation, request)
    same(found, builtin(model, conversation, request))
    assert [row[0] for row in found.logp] == [[0.0] * len(ids) for ids in given]


def test_a_hand_over_changes_the_answers_and_none_is_missed(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn, tmp_path: Path
) -> None:
    request = Request(PROMPTS, 2)
    answers = []
    for seed in range(4):
        model = make_model(seed=seed)
        engine.load(model)
        found = engine.sample(conversation, request)
        same(found, builtin(model, conversation, request))  # the prompts are those of the time before
        answers.append(str(found.segments))
    assert len({*answers}) == 4 and len({*stand_in.loaded}) == 4
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_of_an_adapters_model_the_base_goes_once_and_then_the_adapter_alone(
    make_model: Any, conversation: Any, engine: VllmEngine, taking: StandIn, tmp_path: Path
) -> None:
    model, request, answers = adapted(make_model()), Request(PROMPTS, 2), []

    def agrees(handed_over: int) -> None:
        taking.loaded.clear()
        engine.load(model)
        found = engine.sample(conversation, request)
        same(found, builtin(model, conversation, request))
        answers.append(str(found.segments))
        assert len(taking.loaded) == handed_over

    agrees(2)
    for number in range(3):
        torch.manual_seed(number)
        change_adapter(model, lambda weight: weight.normal_(std=0.3))
        agrees(1)
    with model.disable_adapter():  # the reference
        agrees(0)
    agrees(1)
    assert len({*answers}) == 5 and answers[-1] == answers[-3]
    model = make_model(seed=1)  # another phase's, whole
    agrees(1)
    model = adapted(model)
    agrees(2)
    assert not list(tmp_path.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("rank", [0, 2])
def test_adapters_that_a_server_does_not_take_are_merged(
    make_model: Any,
    conversation: Any,
    engine: VllmEngine,
    stand_in: StandIn,
    caplog: pytest.LogCaptureFixture,
    rank: int,
) -> None:
    caplog.set_level("INFO")
    stand_in.rank = rank
    model, request = adapted(make_model()), Request(PROMPTS, 2)
    for _ in range(2):
        engine.load(model)
        same(engine.sample(conversation, request), builtin(model, conversation, request))
    assert len(stand_in.loaded) == (3 if rank else 2)  # the base, in vain, and all weights twice
    refused = "from here on: .* LoRA rank 4 is greater than max_lora_rank 2"
    said = refused if rank else "takes no adapters: they are merged"
    assert len(re.findall(said, caplog.text)) == 1


def test_an_adapter_that_did_not_arrive_is_noticed(
    make_model: Any, engine: VllmEngine, taking: StandIn
) -> None:
    model = adapted(make_model())
    engine.load(model)
    taking.lies = {"stale"}
    change_adapter(model, lambda weight: weight.neg_())
    with pytest.raises(UserError, match=r"launch\.sampler: the server at .* differs from the trainer"):
        engine.load(model)


def test_small_steps_are_followed(make_model: Any, engine: VllmEngine) -> None:
    model = make_model()
    for _ in range(5):
        engine.load(model)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(1e-5 * torch.randn_like(weight))


def test_steps_that_are_too_small_to_tell_add_up_until_they_are_not(
    make_model: Any, engine: VllmEngine, stand_in: StandIn
) -> None:
    model = make_model()
    engine.load(model)
    stand_in.lies = {"stale"}
    with pytest.raises(UserError, match="was handed new weights and answers as with the old"):
        for number in range(40):
            with torch.no_grad():
                model.model.norm.weight[0] += 1e-7 * 2**number  # one weight, by a last digit at first
            engine.load(model)
    assert 3 < len(stand_in.loaded) < 20


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("missing", r"gave answers \[0, 1\] where 3 were asked for"),
        ("twice", r"gave answers \[0, 0, 1\] where 3"),
        ("another", "answered another question"),
        ("cut", "tokens that end neither"),
        ("fewer", r"log-probabilities of \d tokens"),
    ],
)
def test_a_server_that_answers_something_else_is_refused(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn, lie: str, said: str
) -> None:
    engine.load(make_model())
    stand_in.lies = {lie}
    with pytest.raises(UserError, match=f"launch.sampler: the server at http://127.0.0.1.* {said}"):
        engine.sample(conversation, Request(PROMPTS, 2, 3, noise(3, 2)))


def test_choices_in_another_order_are_put_in_theirs(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn
) -> None:
    engine.load(make_model())
    request = Request(PROMPTS, 2, 3, noise(3, 2))
    expected = engine.sample(conversation, request)
    stand_in.lies = {"shuffled"}
    same(engine.sample(conversation, request), expected)


def test_a_server_with_tied_weights_is_noticed(make_model: Any, tmp_path: Path) -> None:
    make_model(tied=True).config.save_pretrained(tmp_path / "tied")
    with StandIn(tmp_path / "tied") as server:
        engine = VllmEngine(VllmServer(server.address, 20.0), tmp_path, "float32", 1e-4)
        with pytest.raises(
            UserError, match=r"differs from the trainer by .* nats a token.*tie_word_embeddings"
        ):
            engine.load(make_model())


@pytest.mark.parametrize("lie", ["stale", "no temperature", "remembers"])
def test_weights_that_did_not_arrive_are_noticed(
    make_model: Any, engine: VllmEngine, stand_in: StandIn, lie: str
) -> None:
    engine.load(make_model(seed=0))
    stand_in.lies = {lie}
    with pytest.raises(UserError, match=r"launch\.sampler: the server at"):
        engine.load(make_model(seed=1))


def test_weights_in_another_precision_are_noticed(make_model: Any, stand_in: StandIn, tmp_path: Path) -> None:
    engine = VllmEngine(VllmServer(stand_in.address, 20.0), tmp_path, "bfloat16", 1e-4)
    with pytest.raises(UserError, match=r"differs from the trainer by"):
        engine.load(make_model())


def test_a_server_that_was_started_anew_meanwhile_is_noticed(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn
) -> None:
    engine.load(make_model())
    engine.sample(conversation, Request(PROMPTS, 2))
    stand_in.lies, stand_in.after = {"anew"}, len(stand_in.asked) + 8
    with pytest.raises(UserError, match=r"has other weights than it was handed .* last checkpoint"):
        engine.sample(conversation, Request(PROMPTS, 2))


def test_a_server_that_dies_or_is_not_there_is_one_line(
    make_model: Any, conversation: Any, engine: VllmEngine, stand_in: StandIn, tmp_path: Path
) -> None:
    engine.load(make_model())
    stand_in.lies, stand_in.after = {"dies"}, len(stand_in.asked) + 5
    with pytest.raises(UserError, match=r"does not answer \(.*\); its log says why.*last checkpoint\.$"):
        engine.sample(conversation, Request(PROMPTS, 2))
    nobody = VllmEngine(VllmServer("http://127.0.0.1:9", 20.0), tmp_path, "float32", 1e-4)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 does not answer"):
        nobody.load(make_model())


def test_a_server_that_refuses_says_why(make_model: Any, engine: VllmEngine, stand_in: StandIn) -> None:
    stand_in.dummy = True
    stand_in.call = lambda *_: 1 / 0
    with pytest.raises(UserError, match=r"answered 500 \(.*ZeroDivisionError.*\)"):
        engine.load(make_model())


def test_nothing_goes_through_a_proxy(
    make_model: Any, engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    engine.load(make_model())


def test_auto_takes_a_server_only_where_one_is_named_and_allowed() -> None:
    named = {"sampler": "http://127.0.0.1:1"}
    assert engine_name(runtime(), "any", "training") == "builtin"
    assert engine_name(runtime(launch=named), "reproducible", "training") == "builtin"
    assert engine_name(runtime(launch=named), "any", "training") == "vllm"
    assert engine_name(runtime(launch={"sampler": "start"}), "any", "training") == "vllm"
    assert engine_name(runtime(launch=named, engine="builtin"), "any", "training") == "builtin"
    said = r"params\.yaml: evaluation\.sampling: reproducible expects .* runtime\.yaml: engine: vllm"
    with pytest.raises(UserError, match=said):
        engine_name(runtime(launch=named, engine="vllm"), "reproducible", "evaluation")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "vllm"}, "launch.sampler names none"),
        ({"launch": {"sampler": "127.0.0.1:8000"}}, "expected start, null, or an address"),
        ({"launch": {"sampler": "stop"}}, "expected start, null, or an address"),
        (
            {"launch": {"sampler": "start", "machines": 2, "main_address": "10.0.0.1", "main_port": 9}},
            "vllm.port: all machines have to know it",
        ),
    ],
)
def test_settings_that_name_no_server_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        runtime(**settings)


def test_a_folder_for_weights_that_is_not_there_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    def make(folder: Path, **launch: Any) -> Engine:
        launch = {"sampler": "http://127.0.0.1:1", **launch}
        return make_engine("vllm", runtime(launch=launch, vllm={"weights": str(folder)}), "float32")

    assert make(tmp_path)
    with pytest.raises(UserError, match=r"runtime\.yaml: vllm\.weights: .*nowhere: no such folder; make it"):
        make(tmp_path / "nowhere")
    # The first machine alone hands over.
    later = {"machines": 2, "machine_rank": 1, "main_address": "10.0.0.1", "main_port": 9}
    assert make(tmp_path / "nowhere", **later)


def test_the_account_of_an_engine() -> None:
    assert sampled_by("builtin") == {"engine": "builtin", "reproducible": True}
    assert sampled_by("vllm") == {"engine": "vllm", "reproducible": False}
    made = make_engine("vllm", runtime(launch={"sampler": "http://127.0.0.1:1"}), "bfloat16", 0.5)
    assert isinstance(made, VllmEngine) and made.dtype == torch.bfloat16 and made.check.most == 1.5
    assert {name for name, kind in ENGINES.items() if kind.reproducible} == {"builtin"}


def test_a_connection_that_the_server_may_be_closing_is_not_used(
    stand_in: StandIn, make_model: Callable[..., Any], engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers close idle connections after 5 s; a question that crosses with that is never answered."""
    assert vllm_server.IDLE < 5
    monkeypatch.setattr(vllm_server, "IDLE", 0.2)
    engine.load(make_model())
    ports, answer = [], Handler.do_POST

    def note(self: Handler) -> None:
        ports.append(self.client_address[1])
        answer(self)

    monkeypatch.setattr(Handler, "do_POST", note)

    async def ask_thrice() -> None:
        async with VllmServer(stand_in.address, 20.0).asking() as ask:
            for pause in (0.0, 0.0, 0.5):
                time.sleep(pause)
                await ask(Question([2, 7], 1, 2, (), 1.0, 1.0, 0))

    asyncio.run(ask_thrice())
    assert ports[0] == ports[1] != ports[2]
