"""Fast kernels beside the slow ones: the same network, the same samples, the same probabilities."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from score_core.errors import UserError
from score_core.models.kernels import use_kernels
from score_core.rl.logprobs import add_token_scoring, score
from tests.configs import runtime
from tests.sampling import sample

PROMPTS = [[2, 9, 8, 14, 7], [2, 7], [2, 11, 12, 13, 14, 4, 15, 15]]


def said(model, conversation, **settings):
    """Two greedy attempts, and their log-probabilities and gradient, scored with prompts shared."""
    model = use_kernels(model, runtime(**settings))
    trajectories, _ = sample(model, conversation, PROMPTS * 2, 2)
    add_token_scoring(model)
    logp_P = score(model, trajectories, 1.0, share_prompts=True).logp_P
    (gradient,) = torch.autograd.grad(logp_P.sum(), [next(model.parameters())])
    return trajectories.attempts, logp_P.detach(), gradient


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "gpt2"])
def test_fused_attention_equals_the_plain_one(make_model, make_conversation, family):
    conversation = make_conversation(end_ids=[1, 5, 6, 7])
    models = {name: make_model(family) for name in ("eager", "sdpa", "auto")}
    found = {name: said(model, conversation, attention=name) for name, model in models.items()}
    in_effect = {name: model.config._attn_implementation for name, model in models.items()}
    assert in_effect == {"eager": "eager", "sdpa": "sdpa", "auto": "sdpa"}
    attempts, logp_P, gradient = found["eager"]
    assert found["sdpa"][0] == attempts
    torch.testing.assert_close(found["sdpa"][1], logp_P, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["sdpa"][2], gradient, atol=1e-4, rtol=1e-4)
    for one, other in zip(found["sdpa"][1:], found["auto"][1:], strict=True):
        assert torch.equal(one, other), "auto changes no bits"


def test_the_base_under_an_adapter_is_meant(make_model):
    adapted = get_peft_model(make_model(), LoraConfig(r=2, target_modules="all-linear"))
    assert use_kernels(adapted, runtime(attention="eager")) is adapted
    assert adapted.get_base_model().config._attn_implementation == "eager"


def test_a_family_without_an_implementation_is_refused(make_model):
    model = make_model()
    type(model)._supports_sdpa, before = False, type(model)._supports_sdpa
    model.set_attn_implementation("eager")
    try:
        with pytest.raises(
            UserError, match=r"runtime\.yaml: attention: sdpa is not there for qwen2 .*; use auto"
        ):
            use_kernels(model, runtime(attention="sdpa"))
    finally:
        type(model)._supports_sdpa = before


def test_what_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("score_core.config.runtime.find_spec", lambda _: None)
    with pytest.raises(
        UserError, match="attention: flash_attention_2 is not installed; `pip install flash-attn`"
    ):
        runtime(attention="flash_attention_2")
    with pytest.raises(UserError, match="fused_kernels: liger is not installed; `pip install liger-kernel`"):
        runtime(fused_kernels="liger")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Liger's kernels need a GPU")
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_ligers_kernels_equal_the_plain_ones(make_model, make_conversation, family):
    pytest.importorskip("liger_kernel")
    conversation = make_conversation(end_ids=[1, 5, 6, 7])
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
    # The plain ones first: its rotary positions replace those of the whole family.
    plain, fused = (
        said(make_model(family, **sizes).cuda(), conversation, fused_kernels=name)
        for name in ("none", "liger")
    )
    assert fused[0] == plain[0]
    torch.testing.assert_close(fused[1], plain[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(fused[2], plain[2], atol=1e-2, rtol=1e-2)
