"""The engine `vllm` against vLLM itself, on CPUs (`make test-vllm`): a model of hidden 128 with 4 heads.

On CPUs its attention takes heads of 32 numbers and more, so the embedded model cannot be served.
"""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.embedded.addition import make_problems
from score_core.embedded.addition_model import build
from score_core.errors import UserError
from score_core.models.folders import load_model, load_tokenizer, save_model
from score_core.problems import read_problems, write_problems
from score_core.rollout.conversation import Conversation, load_conversation
from score_core.rollout.engines import make_engine
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Engine, Request, Sampled
from score_core.rollout.engines.vllm_server import Question, VllmServer
from tasks.runner.sampler import sampler
from tests.configs import ROOT, runtime
from tests.score_core.models.test_handover import adapted, change_adapter
from tests.small_run import evaluate, folders, small_config, train_stage, untied

pytestmark = pytest.mark.vllm
CLOSE = 1e-3  # nats; float32
LORA = {"rank": 4, "alpha": 8}
MODEL = {"hidden_size": 128, "heads": 4, "feed_forward": 256, "steps": 500}


def settings(**sections: Any) -> Config:
    training = {"sampling": "any", **sections.pop("training", {})}
    return small_config(model=MODEL, training=training, evaluation={"sampling": "any"}, **sections)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a base model of the default's lessons that vLLM can serve."""
    root, config = tmp_path_factory.mktemp("vllm"), settings()
    torch.set_num_threads(1)
    (root / "data").mkdir()
    for split, problems in make_problems(config.data, config.seed).items():
        write_problems(root / "data", split, problems)
    build(config.model, config.data, config.seed, root / "base")
    save_model(untied(load_model(root / "base")), load_tokenizer(root / "base"), root / "untied")
    return root


def start_of(arguments: str = "") -> Runtime:
    """Settings by which a server is started, with these arguments of its own."""
    return runtime(
        threads=1,
        launch={"sampler": "start"},
        vllm={
            "python": str(ROOT / ".venv-vllm" / "bin" / "python"),
            "port": 0,
            "arguments": f"--kv-cache-memory-bytes 268435456 {arguments}",
        },
    )


@pytest.fixture(scope="module")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A server that all tests share, and settings that name it."""
    log = tmp_path_factory.mktemp("log")
    began = time.monotonic()
    # Few tokens at a time, so that many a prompt has to wait, and none may be read in parts.
    few, adapters = start_of("--max-num-batched-tokens 64"), settings(lora=LORA)
    with sampler(adapters, few, run / "base", 2, log) as address:
        print(f"up after {time.monotonic() - began:.0f} s")
        yield runtime(threads=1, launch={"sampler": address})


@pytest.fixture
def engine(served: Runtime) -> Engine:
    return make_engine("vllm", served, "float32")


@pytest.fixture(scope="module")
def conversation(run: Path) -> Conversation:
    return load_conversation(run / "base", settings().conversation, 2)


def agree(found: Sampled, expected: Sampled) -> float:
    """Ids are equal; the largest difference of log-probabilities."""
    assert found.segments == expected.segments
    assert found.truncated == expected.truncated
    pairs = zip(flat(found), flat(expected), strict=True)
    return max(abs(one - other) for one, other in pairs)


def flat(sampled: Sampled) -> list[float]:
    return [value for row in sampled.logp for attempt in row for value in attempt]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [False, True])
def test_greedy_ids_are_the_built_in_ones_and_log_probabilities_close(
    run: Path, engine: Engine, conversation: Conversation, tied: bool, lora: bool
) -> None:
    model = load_model(run / ("base" if tied else "untied"))
    plain, whole = BuiltinEngine(), adapted(model) if lora else model
    prompts = [conversation.prompt(problem) for problem in read_problems(run / "data", "test")]
    for one in (plain, engine):
        one.load(whole)
    off = agree(*(one.sample(conversation, Request(prompts, 2)) for one in (engine, plain)))
    print(f"tied {tied}, adapter {lora}: {off:.1e} nats at most")
    assert off < CLOSE


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
def test_sampled_log_probabilities_are_the_trainers(
    run: Path, engine: Engine, conversation: Conversation, temperature: float
) -> None:
    model = load_model(run / "base")
    engine.load(model)
    prompts = [conversation.prompt(problem) for problem in read_problems(run / "data", "test")[:16]]
    noise = np.random.default_rng(0).random((64, 2, conversation.settings.max_new_tokens))
    found = engine.sample(conversation, Request(prompts, 2, 4, noise, temperature))
    assert len({str(dialogue) for dialogue in found.segments}) > 16  # samples of a prompt differ
    for dialogue, logp in zip(found.segments, found.logp, strict=True):
        ids = [token for piece, _ in dialogue for token in piece]
        attempt = [number for piece, number in dialogue for _ in piece]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1] / temperature
        scored = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        ours = scored[torch.tensor(attempt[1:]) > 0]
        assert ours.tolist() == pytest.approx([value for row in logp for value in row], abs=CLOSE)


def test_each_hand_over_changes_the_answers_and_none_is_missed(
    run: Path, engine: Engine, conversation: Conversation
) -> None:
    model = load_model(run / "base")
    prompts = [conversation.prompt(problem) for problem in read_problems(run / "data", "test")[:16]]
    plain, said = BuiltinEngine(), []
    for number in range(8):
        torch.manual_seed(number)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        for one in (plain, engine):
            one.load(model)
        found = engine.sample(conversation, Request(prompts, 2))
        assert agree(found, plain.sample(conversation, Request(prompts, 2))) < CLOSE
        said.append(flat(found))
    assert len({tuple(values) for values in said}) == 8


def test_adapters_are_followed_and_left_out_where_they_are_off(
    run: Path, engine: Engine, conversation: Conversation
) -> None:
    model = adapted(load_model(run / "base"))
    prompts = [conversation.prompt(problem) for problem in read_problems(run / "data", "test")[:16]]
    plain, said = BuiltinEngine(), []

    def agrees() -> None:
        for one in (plain, engine):
            one.load(model)
        found = engine.sample(conversation, Request(prompts, 2))
        assert agree(found, plain.sample(conversation, Request(prompts, 2))) < CLOSE
        said.append(tuple(flat(found)))

    for number in range(3):
        torch.manual_seed(number)
        change_adapter(model, lambda weight: weight.normal_(std=0.1))
        agrees()
        with model.disable_adapter():
            agrees()
    assert len({*said}) == 4 and said[1] == said[3] == said[5]


def test_an_adapter_of_a_higher_rank_than_the_server_takes_is_merged(
    run: Path, engine: Engine, conversation: Conversation, caplog: pytest.LogCaptureFixture
) -> None:
    model = adapted(load_model(run / "base"), rank=16)
    prompts = [conversation.prompt(problem) for problem in read_problems(run / "data", "test")[:16]]
    plain = BuiltinEngine()
    for one in (plain, engine):
        one.load(model)
    off = agree(*(one.sample(conversation, Request(prompts, 2)) for one in (engine, plain)))
    assert off < CLOSE and "merged into the weights from here on" in caplog.text


def test_hand_overs_are_quick(run: Path, engine: Engine) -> None:
    model = load_model(run / "base")
    engine.load(model)
    began = time.monotonic()
    engine.load(model)
    print(f"a hand-over with its check takes {time.monotonic() - began:.2f} s")


def test_evaluation_gives_the_built_in_engines_answers(run: Path, served: Runtime) -> None:
    test = read_problems(run / "data", "test")
    found = evaluate(run / "base", test, settings(), served)
    pd.testing.assert_frame_equal(found, evaluate(run / "base", test, settings(), runtime(threads=1)))


def test_many_questions_at_once_come_back_in_order(run: Path, served: Runtime, engine: Engine) -> None:
    engine.load(load_model(run / "base"))
    server = VllmServer(str(served.launch.sampler), 60.0)
    questions = [Question([2, 4 + n % 10], 2, 1 + n % 4, (), 1.0, 1.0, n) for n in range(300)]

    async def ask_all() -> list[Any]:
        async with server.asking() as ask:
            return await asyncio.gather(*map(ask, questions))

    found = asyncio.run(ask_all())
    assert [[len(answer.ids) for answer in two] for two in found] == [[q.limit] * 2 for q in questions]


def test_a_killed_server_is_one_line_and_the_rerun_resumes(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = settings(training={"steps": 12, "validate_every": 12, "learning_rate": 1e-4})
    target = replace(folders(run, tmp_path, "stage1"), work=tmp_path / "work")

    def train_with(kill: bool) -> None:
        with sampler(config, start_of(), run / "base", 2, tmp_path) as address:
            here = runtime(threads=1, launch={"sampler": address}, checkpoints={"every_seconds": 0.001})
            if kill:
                threading.Thread(
                    target=kill_in_sampling, args=(target.work / "log.jsonl",), daemon=True
                ).start()
            train_stage("stage1", config, here, target)

    with pytest.raises(UserError, match=r"launch\.sampler: .* (does not answer|answered 500)"):
        train_with(kill=True)
    assert not target.output.exists()
    train_with(kill=False)
    assert "resumed from step" in caplog.text and target.output.exists()


def kill_in_sampling(log: Path) -> None:
    """Kills all of the server at a random moment after some steps."""
    while not (log.exists() and '"step": 3,' in log.read_text()):
        time.sleep(0.01)
    time.sleep(random.random())
    for process in psutil.Process().children(recursive=True):
        if "vllm" in " ".join(process.cmdline()).lower():
            process.kill()
