"""The sampler against a loop that has no cache, no padding and no batch."""

import numpy as np
import pytest
import torch

from score_core.models import memory
from score_core.rl.logprobs import add_token_scoring, score
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.drawing import choose
from score_core.rollout.engines.engine import Request
from score_core.rollout.trajectories import assemble
from tests.sampling import sample

PROMPTS = [[2, 9, 8, 14, 7], [2, 7], [2, 11, 12, 13, 14, 4, 15, 15], [2, 5, 3]]
END_IDS = [1, 5, 6, 7]  # several, so that answers end early, late and not at all
LIMIT = 6


@pytest.fixture
def conversation(make_conversation):
    return make_conversation(end_ids=END_IDS, max_new_tokens=LIMIT)


def pick(logits: torch.Tensor, u: float | None, temperature: float = 1.0, top_p: float = 1.0) -> int:
    """Inverse transform sampling, one token, by hand."""
    if u is None:
        return int(logits.argmax())
    mass = np.exp(np.array(logits.tolist()) / temperature)
    mass = mass / mass.sum()
    kept, total = set(), 0.0
    for token in sorted(range(len(mass)), key=lambda token: -mass[token]):
        if total < top_p:
            kept.add(token)
        total += mass[token]
    mass = [m if token in kept else 0.0 for token, m in enumerate(mass)]
    below = 0.0
    for token, m in enumerate(mass):
        below += m
        if u * sum(mass) < below:
            return token
    raise AssertionError("u must be below 1")


@torch.no_grad()
def alone(model, conversation, prompt, attempts, noise=None, given=None, temperature=1.0, top_p=1.0):
    """One dialogue: the whole text is read again for every token."""
    ids, answers = list(prompt), []
    for attempt in range(attempts):
        if attempt == 0 and given is not None:
            answer = list(given)
        else:
            answer = []
            while len(answer) < LIMIT and (not answer or answer[-1] not in conversation.end_ids):
                logits = model(input_ids=torch.tensor([ids + answer])).logits[0, -1]
                u = None if noise is None else noise[attempt, len(answer)]
                answer.append(pick(logits, u, temperature, top_p))
        answers.append(answer)
        ids += answer
        if answer[-1] != conversation.instruction[0]:
            ids.append(conversation.instruction[0])
        ids += conversation.instruction[1:]
    return answers


def uniform(rows: int, attempts: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, attempts, LIMIT))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_greedy_with_a_continued_cache_equals_a_fresh_prefill(make_model, conversation, family, attempts):
    for seed in range(4):
        model = make_model(family, seed=seed)
        found, _ = sample(model, conversation, PROMPTS, attempts)
        assert found.attempts == [alone(model, conversation, prompt, attempts) for prompt in PROMPTS]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8)])
@pytest.mark.parametrize("attempts", [2, 3])
def test_sampling_equals_a_fresh_prefill(make_model, conversation, attempts, temperature, top_p):
    model, noise = make_model(), uniform(12, attempts)
    options = {"temperature": temperature, "top_p": top_p}
    found, _ = sample(model, conversation, PROMPTS, attempts, samples=3, noise=noise, **options)
    expected = [
        alone(model, conversation, PROMPTS[row // 3], attempts, noise[row], **options) for row in range(12)
    ]
    assert found.attempts == expected
    lengths = {len(answer) for row in expected for answer in row}
    assert {1, LIMIT} <= lengths, "wanted: answers that end at once, and cut ones"


def test_what_is_sampled_does_not_depend_on_batching(make_model, conversation):
    model, noise = make_model(seed=2), uniform(8, 2)
    whole, logp = sample(model, conversation, PROMPTS, 2, samples=2, noise=noise)
    for rows in ([0], [3], [2, 0], [3, 1, 2]):
        both = [row * 2 + k for row in rows for k in (0, 1)]
        part, part_logp = sample(
            model, conversation, [PROMPTS[row] for row in rows], 2, samples=2, noise=noise[both]
        )
        assert part.attempts == [whole.attempts[row] for row in both]
        torch.testing.assert_close(part_logp, logp[both], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 9, 20])
def test_what_is_read_together_fits_the_memory_for_it(make_model, conversation, monkeypatch, tokens):
    """Prompts and instructions in groups of rows, and in what is sampled nothing changes."""
    model, u = make_model(), uniform(8, 3)
    engine, asked = BuiltinEngine(), Request(PROMPTS, 3, 2, u)
    engine.load(model)
    expected = engine.sample(conversation, asked)
    room = tokens * 4 * (8 * 16 + 3 * 24)  # what comes into a layer, and the MLP's parts
    monkeypatch.setattr(memory, "READ", room)
    forwards, attend = [], torch.nn.functional.scaled_dot_product_attention

    def attending(query, key, value, **named):
        if key.shape[1] > model.config.num_key_value_heads:
            forwards[-1]["copied"] = 4 * (key.numel() + value.numel())
        return attend(query, key, value, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attending)
    handle = model.register_forward_pre_hook(
        lambda module, given, named: forwards.append({"shape": tuple(named["input_ids"].shape), "copied": 0}),
        with_kwargs=True,
    )
    found = engine.sample(conversation, asked)
    handle.remove()
    read = [(*one["shape"], one["copied"]) for one in forwards if one["shape"][1] > 1]
    assert len(read) > 3 and any(copied for *_, copied in read)
    assert all(rows * width <= tokens or rows == 1 for rows, width, _ in read)
    assert all(rows == 1 or rows * width * 4 * 8 * 16 + copied <= room for rows, width, copied in read)
    assert not any(one["copied"] for one in forwards if one["shape"][1] == 1)
    assert found.segments == expected.segments and found.truncated == expected.truncated
    for one, other in zip(found.logp, expected.logp, strict=True):
        assert [value for row in one for value in row] == pytest.approx(
            [value for row in other for value in row], abs=1e-5
        )


def test_repeating_a_prompt_equals_prefilling_it_again(make_model, conversation):
    model, noise = make_model(), uniform(8, 2)
    shared, _ = sample(model, conversation, PROMPTS, 2, samples=2, noise=noise)
    again, _ = sample(model, conversation, [p for p in PROMPTS for _ in (0, 1)], 2, noise=noise)
    assert shared.segments == again.segments


def test_given_first_attempts(make_model, conversation):
    model, noise = make_model(), uniform(4, 2)
    given = [[3, 4, 1], [8, 9, 10, 11, 12, 13], [5], [14, 7]]
    found, logp = sample(model, conversation, PROMPTS, 2, noise=noise, given=given)
    for row, answers in enumerate(found.attempts):
        assert answers == alone(model, conversation, PROMPTS[row], 2, noise[row], given=given[row])
        assert answers[0] == given[row]
    assert found.truncated_NT[:, 0].tolist() == [False, True, False, False]
    assert (logp[:, 0] == 0).all()
    assert (logp[:, 1] < 0).all()


@pytest.mark.parametrize("pad_id", [0, 1])
def test_masks_end_at_the_first_end_token(make_model, conversation, pad_id):
    """For pad different from the end token (0) and equal to it (1)."""
    model = make_model()
    sampled, logp = sample(model, conversation, PROMPTS, 3, samples=4, noise=uniform(16, 3))
    found = assemble(sampled.segments, sampled.truncated_NT, pad_id=pad_id)
    for row in range(16):
        expected = []
        for ids, turn in found.segments[row]:
            if turn:
                at = [place for place, token in enumerate(ids) if token in END_IDS]
                assert at == ([] if found.truncated_NT[row, turn - 1] else [len(ids) - 1])
                assert len(ids) == LIMIT or at
            expected += [turn] * len(ids)
        width = found.attempt_NL.shape[1]
        assert found.attempt_NL[row].tolist() == [0] * (width - len(expected)) + expected
    add_token_scoring(model)
    with torch.no_grad():
        total = score(model, found, 1.0).logp_P.sum()
    torch.testing.assert_close(total, logp.sum(), rtol=1e-4, atol=1e-3)


def test_a_cut_attempt_is_closed_by_context(make_model, make_conversation):
    conversation = make_conversation(end_ids=[1], max_new_tokens=LIMIT)
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[1] = 0  # the end token becomes rare
    found, _ = sample(model, conversation, PROMPTS, 2, noise=uniform(4, 2))
    cut = 0
    for row, pieces in enumerate(found.segments):
        (_, _), (first, _), (between, turn), (_, _) = pieces
        assert turn == 0
        ended = first[-1] == 1
        assert between == (conversation.instruction[1:] if ended else conversation.instruction)
        assert bool(found.truncated_NT[row, 0]) == (not ended)
        cut += not ended
    assert cut >= 2


def test_training_mode_is_left_as_it_was_and_not_used(make_model, conversation):
    model, noise = make_model(attention_dropout=0.5), uniform(4, 2)
    calm, _ = sample(model.eval(), conversation, PROMPTS, 2, noise=noise)
    assert not model.training
    found, _ = sample(model.train(), conversation, PROMPTS, 2, noise=noise)
    assert model.training
    assert found.segments == calm.segments


def test_who_listens_hears_each_token_and_changes_none(make_model, conversation):
    model, noise = make_model(), uniform(12, 3)
    quiet, _ = sample(model, conversation, PROMPTS, 3, samples=3, noise=noise)
    heard = [[[] for _ in range(3)] for _ in range(12)]

    def listen(attempt: int, tokens: dict[int, int]) -> None:
        for row, token in tokens.items():
            heard[row][attempt - 1].append(token)

    engine = BuiltinEngine()
    engine.load(model)
    engine.on_token = listen
    found = engine.sample(conversation, Request(PROMPTS, 3, 3, noise))
    assert found.segments == list(quiet.segments)
    assert heard == quiet.attempts


# ---------------------------------------------------------------------------------- choosing


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_frequencies_are_the_models(temperature, top_p):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, generator=generator) * 2
    count = 50_000
    u = torch.rand(count, dtype=torch.float64, generator=generator)
    token, logp = choose(logits.expand(count, 12), u, temperature, top_p)
    mass = (logits.double() / temperature).softmax(-1)
    torch.testing.assert_close(logp.double(), mass.log()[token], rtol=1e-4, atol=1e-5)
    order = mass.argsort(descending=True)
    kept = order[: int((mass[order].cumsum(0) < top_p).sum()) + 1]
    seen = torch.bincount(token, minlength=12)
    assert seen.sum() == seen[kept].sum()
    expected = mass[kept] / mass[kept].sum() * count
    chi_square = float(((seen[kept] - expected) ** 2 / expected).sum())
    freedom = len(kept) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def test_noise_of_independent_rows_gives_independent_tokens():
    u = torch.rand(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(20_000, 2)
    first, second = (choose(logits, u[:, k], 1.0, 1.0)[0].double() for k in (0, 1))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.03


@pytest.mark.parametrize("u", [0.0, 1e-300, 0.25, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_tokens_without_mass_are_never_chosen(u, top_p):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 9, generator=generator) * 3
    logits[:, [0, 4, 8]] = -torch.inf
    token, logp = choose(logits, torch.full((2000,), u, dtype=torch.float64), 1.0, top_p)
    assert not torch.isin(token, torch.tensor([0, 4, 8])).any()
    assert logp.isfinite().all()
    if top_p < 1:
        mass = logits.double().softmax(-1)
        chance = mass.gather(1, token[:, None])
        above = torch.where(mass > chance, mass, 0.0).sum(1)
        assert (above < top_p + 1e-6).all()


def test_greedy_takes_the_first_of_the_most_probable():
    token, logp = choose(torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 2.0]]), None, 0.0, 1.0)
    assert token.tolist() == [1, 0]
    torch.testing.assert_close(logp, torch.log_softmax(torch.tensor([[3.0, 0, 1], [2, -1, 2]]), -1)[:, 0])
