"""Scores of whole trajectories against forwards without padding, cache, chunks or shortcuts."""

import copy
import inspect

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from score_core.rl import logprobs
from score_core.rl.logprobs import add_token_scoring, score
from score_core.rl.objective import kl_term
from score_core.rollout.trajectories import Trajectories, assemble
from tests.sampling import sample
from tests.score_core.rl.distributions import logp_PV, score_as_reference

FAMILIES = ("qwen2", "qwen3", "llama")


def ragged(attempts: int = 2, count: int = 5, seed: int = 0) -> Trajectories:
    rng = np.random.default_rng(seed)

    def ids(most: int) -> list[int]:
        return rng.integers(2, 20, size=rng.integers(1, most + 1)).tolist()

    rows = []
    for _ in range(count):
        pieces = [(ids(7), 0), (ids(5), 1)]
        for attempt in range(2, attempts + 1):
            pieces += [(ids(3), 0), (ids(6), attempt)]
        rows.append(tuple(pieces))
    return assemble(rows, [[False] * attempts] * count, pad_id=0)


def oracle(model, trajectories: Trajectories, temperature: float = 1.0) -> Tensor:
    """log-distributions (P, V): a forward of its own for each attempt, one row, no padding."""
    found = []
    for pieces in trajectories.segments:
        context: list[int] = []
        for ids, turn in pieces:
            if turn:
                logits = model(input_ids=torch.tensor([context + ids])).logits[0]
                found.append(logits[len(context) - 1 : -1].float() / temperature)
            context = context + ids
    return torch.cat(found).log_softmax(-1)


def sampled(trajectories: Trajectories) -> Tensor:
    return torch.tensor([t for row in trajectories.attempts for ids in row for t in ids])


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_one_sequence_equals_separate_forwards(make_model, family, tied, temperature):
    model, reference = make_model(family, tied=tied), make_model(family, tied=tied, seed=1)
    trajectories = ragged(attempts=3)
    expected_PV = oracle(model, trajectories, temperature)
    reference_PV = oracle(reference, trajectories, temperature)
    add_token_scoring(model)
    add_token_scoring(reference)
    _, distributions = score_as_reference(reference, trajectories, temperature)
    found = score(model, trajectories, temperature, reference=distributions)
    found_PV = logp_PV(model, trajectories, temperature)
    torch.testing.assert_close(found_PV, expected_PV, rtol=1e-4, atol=1e-5)
    expected = expected_PV.gather(1, sampled(trajectories)[:, None])[:, 0]
    torch.testing.assert_close(found.logp_P, expected, rtol=1e-4, atol=1e-5)
    own = torch.distributions.Categorical(logits=expected_PV)
    entropy = own.entropy()
    torch.testing.assert_close(found.entropy_P, entropy, rtol=1e-4, atol=1e-5)
    assert not found.entropy_P.requires_grad
    kl = torch.distributions.kl_divergence(own, torch.distributions.Categorical(logits=reference_PV))
    torch.testing.assert_close(found.kl_P, kl, rtol=1e-4, atol=1e-5)
    assert kl.max() > 0.1


def in_groups(seed: int = 0) -> Trajectories:
    """Ten dialogues about four prompts: of a prompt four, three, two and one, of different lengths."""
    rows = list(ragged(count=10, seed=seed).segments)
    prompts = [([5, 6, 7, 8], 0)] * 4 + [([9], 0)] * 3 + [([5, 6, 7], 0)] * 2 + [([3, 4], 0)]
    segments = [(prompt, *row[1:]) for prompt, row in zip(prompts, rows, strict=True)]
    return assemble(segments, [[False, False]] * 10, pad_id=0)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_shared_prompts_change_neither_scores_nor_gradients(make_model, family, tied):
    """Against each dialogue alone; some of one prompt, in any order, and none that is padding's."""
    trajectories = in_groups().select([3, 0, 9, 5, 1, 7, 2, 8, 6, 4])
    gradients = []
    for share in (False, True):
        model, reference = make_model(family, tied=tied), make_model(family, tied=tied, seed=1)
        add_token_scoring(model)
        add_token_scoring(reference)
        seen = count_tokens(model)
        _, distributions = score_as_reference(reference, trajectories, 0.6)
        found = score(model, trajectories, 0.6, reference=distributions, share_prompts=share)
        rest = max(sum(len(ids) for ids, _ in pieces[1:]) for pieces in trajectories.segments)
        assert seen == ([4 * 4, 10 * rest] if share else [10 * trajectories.input_ids_NL.shape[1]])
        torch.manual_seed(0)
        (found.logp_P * torch.randn(len(found.logp_P)) + found.kl_P).sum().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
        expected_PV = oracle(model, trajectories, 0.6)
        expected = expected_PV.gather(1, sampled(trajectories)[:, None])[:, 0]
        torch.testing.assert_close(found.logp_P, expected, rtol=1e-4, atol=1e-5)
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, rtol=1e-3, atol=1e-4, msg=name)


def test_rows_without_a_neighbour_of_their_prompt_take_as_many_calls(make_model):
    """Processes whose micro-batches differ in that would wait for each other under ZeRO-3 and FSDP2."""
    model = make_model("qwen2", tied=True)
    add_token_scoring(model)
    for rows in ([0], [0, 5], [0, 1], [*range(10)]):
        trajectories = in_groups().select(rows)
        seen = count_tokens(model)
        found = score(model, trajectories, 0.6, share_prompts=True).logp_P
        assert len(seen) == 2, rows
        torch.testing.assert_close(found, score(model, trajectories, 0.6).logp_P, rtol=1e-4, atol=1e-5)


def count_tokens(model) -> list[int]:
    """How many tokens, padding included, each forward of the layers reads from now on."""
    seen: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args or [kwargs["input_ids"]])[0].numel()), with_kwargs=True
    )
    return seen


def test_scores_of_a_bfloat16_model_are_not_rounded_to_it(make_model):
    model, trajectories = make_model("qwen2").to(torch.bfloat16), ragged()
    add_token_scoring(model)
    found = score(model, trajectories, 0.6).logp_P
    mask_NL = trajectories.attempt_NL[:, 1:] > 0
    with torch.no_grad():
        logits_NLV = model(
            input_ids=trajectories.input_ids_NL,
            attention_mask=trajectories.attention_mask_NL,
            position_ids=trajectories.position_ids_NL,
        ).logits
    expected_PV = (logits_NLV[:, :-1][mask_NL].float() / 0.6).log_softmax(-1)
    token_P = trajectories.input_ids_NL[:, 1:][mask_NL]
    torch.testing.assert_close(found.detach(), expected_PV.gather(1, token_P[:, None])[:, 0])


def test_gradient_equals_that_of_separate_forwards(make_model):
    model, trajectories = make_model("qwen2"), ragged()
    weight_P = torch.linspace(-1, 1, len(sampled(trajectories)))

    def gradient(logp_P: Tensor) -> Tensor:
        model.zero_grad()
        (weight_P * logp_P).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    expected = gradient(oracle(model, trajectories).gather(1, sampled(trajectories)[:, None])[:, 0])
    add_token_scoring(model)
    found = gradient(score(model, trajectories, 1.0).logp_P)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_scores_come_row_after_row_and_do_not_depend_on_neighbours(make_model):
    model, trajectories = make_model("qwen2"), ragged()
    add_token_scoring(model)
    together = score(model, trajectories, 1.0).logp_P
    alone = torch.cat([score(model, trajectories.select([n]), 1.0).logp_P for n in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    # The reference of Stage I reads [x, y1] only: the same first attempts, nothing of what follows.
    first = score(model, trajectories.upto(1), 1.0).logp_P
    turn_P = trajectories.attempt_NL[trajectories.attempt_NL > 0]
    torch.testing.assert_close(first, together[turn_P == 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equal_to_what_the_sampler_saw(make_model, make_conversation, family, temperature):
    model, conversation = make_model(family), make_conversation(end_ids=[1, 5, 6])
    prompts = [[2, 9, 8], [2, 7], [2, 11, 12, 13, 14, 4]]
    noise = np.random.default_rng(0).random((12, 2, 6))
    trajectories, logp_NT = sample(
        model, conversation, prompts, 2, samples=4, noise=noise, temperature=temperature
    )
    assert len(set(map(tuple, trajectories.lengths_NT.tolist()))) > 4, "wanted: ragged"
    add_token_scoring(model)
    with torch.no_grad():
        logp_P = score(model, trajectories, temperature).logp_P
    expected = torch.zeros_like(logp_NT)
    row_P = torch.arange(12).repeat_interleave(trajectories.lengths_NT.sum(1))
    turn_P = trajectories.attempt_NL[trajectories.attempt_NL > 0]
    expected.index_put_((row_P, turn_P - 1), logp_P, accumulate=True)
    torch.testing.assert_close(logp_NT, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_chunks_of_the_output_layer_equal_the_whole(make_model, monkeypatch, family, tied):
    model, reference = make_model(family, tied=tied), make_model(family, tied=tied, seed=1)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    add_token_scoring(model)
    add_token_scoring(reference)
    trajectories = ragged()
    with torch.no_grad():
        _, distributions = score_as_reference(reference, trajectories, 0.8)

    largest = []
    for network in (model, reference):
        network.lm_head.register_forward_hook(lambda head, given, logits: largest.append(len(logits)))

    def run(chunk: int) -> tuple[list[Tensor], Tensor]:
        monkeypatch.setattr(logprobs, "CHUNK", chunk * model.config.vocab_size)
        model.zero_grad()
        largest.clear()
        found = score(model, trajectories, 0.8, reference=distributions)
        weight_P = torch.linspace(-1, 1, len(found.logp_P))
        (weight_P * (found.logp_P + 0.3 * found.kl_P)).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert max(largest) <= chunk, "logits are held a chunk at a time, the reference's too"
        values = [found.logp_P, found.entropy_P, found.kl_P]
        return [value.detach() for value in values], gradient

    dense, dense_gradient = run(10_000)
    for chunk in (1, 7):
        values, gradient = run(chunk)
        for value, expected in zip(values, dense, strict=True):
            torch.testing.assert_close(value, expected)
        assert (gradient - dense_gradient).norm() < 1e-5 * dense_gradient.norm()


def test_gradient_checkpointing_changes_nothing(make_model):
    model, trajectories = make_model("qwen2").train(), ragged()
    add_token_scoring(model)

    def gradient() -> Tensor:
        model.zero_grad()
        score(model, trajectories, 1.0).logp_P.sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    plain = gradient()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_every_kl_is_exactly_zero_while_policy_and_reference_are_equal(make_model, family, temperature):
    policy = make_model(family)
    add_token_scoring(policy)
    reference = copy.deepcopy(policy)
    trajectories = ragged(attempts=3)
    with torch.no_grad():
        base, distributions = score_as_reference(reference, trajectories, temperature)
    found = score(policy, trajectories, temperature, reference=distributions)
    for estimator in ("exact", "k2_in_loss", "k3_in_loss"):
        kl_P = kl_term(estimator, found.logp_P, base.logp_P, found.kl_P)
        assert (kl_P == 0.0).all()


def test_a_copy_scores_with_its_own_weights(make_model):
    model, trajectories = make_model("qwen2"), ragged()
    add_token_scoring(model)
    before = score(model, trajectories, 1.0).logp_P.detach()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert torch.equal(score(twin, trajectories, 1.0).logp_P, before)
    assert not torch.allclose(score(model, trajectories, 1.0).logp_P, before)


def test_plain_calls_stay_as_they_were(make_model, tmp_path):
    model = make_model("qwen2").eval()
    ids = torch.randint(2, 20, (3, 9), generator=torch.Generator().manual_seed(0))
    ids[0, :4] = 0  # padding, which generate() finds by itself in models that take a mask
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    signature = inspect.signature(model.forward)
    logits, loss = model(ids).logits, model(input_ids=ids, labels=ids).loss
    text = model.generate(ids, **options)
    names = list(model.state_dict())
    add_token_scoring(model)
    add_token_scoring(model)
    assert inspect.signature(model.forward) == signature
    assert torch.equal(model(ids).logits, logits)
    assert torch.equal(model(input_ids=ids, labels=ids).loss, loss)
    assert torch.equal(model(ids, logits_to_keep=2).logits, logits[:, -2:])
    assert torch.equal(model.generate(ids, **options), text)
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, logits)


# ------------------------------------------------------------------------------------------ LoRA


def test_lora_scores_with_and_without_its_adapter(make_model):
    model, trajectories = make_model("qwen2"), ragged()
    add_token_scoring(model)
    base, base_PV = score(model, trajectories, 1.0), logp_PV(model, trajectories, 1.0)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert torch.equal(score(wrapped, trajectories, 1.0).logp_P, base.logp_P), "B starts at zero"

    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    with torch.no_grad(), wrapped.disable_adapter():
        off, distributions = score_as_reference(wrapped, trajectories, 1.0)
        assert torch.equal(logp_PV(wrapped, trajectories, 1.0), base_PV)
    on = score(wrapped, trajectories, 1.0, reference=distributions)
    assert torch.equal(off.logp_P, base.logp_P)
    assert (on.logp_P - base.logp_P).abs().max() > 0.1
    assert on.kl_P.min() > 0

    on.kl_P.sum().backward()
    moved = {name for name, p in wrapped.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved and all("lora_" in name for name in moved)

    merged = copy.deepcopy(wrapped).merge_and_unload()
    expected = oracle(merged, trajectories).gather(1, sampled(trajectories)[:, None])[:, 0]
    torch.testing.assert_close(on.logp_P.detach(), expected.detach(), rtol=1e-4, atol=1e-4)


def test_lora_equal_to_its_base_has_exactly_zero_kl(make_model):
    model, trajectories = make_model("llama"), ragged()
    add_token_scoring(model)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad(), wrapped.disable_adapter():
        off, distributions = score_as_reference(wrapped, trajectories, 1.0)
    on = score(wrapped, trajectories, 1.0, reference=distributions)
    assert (on.kl_P == 0.0).all()
    assert (kl_term("k2_in_loss", on.logp_P, off.logp_P, None) == 0.0).all()
