"""Drawing tokens of large vocabularies, against the distribution function as a whole and in exact numbers."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from score_core.rollout.engines.drawing import BLOCK, choose


def by_hand(logits: torch.Tensor, u: float, temperature: float) -> int:
    """The first token up to which the masses, as exact fractions, exceed the share u of their sum."""
    scaled = logits.float() / temperature
    mass = [Fraction(float(value)) for value in (scaled - scaled.max()).exp()]
    target, below = Fraction(u) * sum(mass), Fraction(0)
    for token, value in enumerate(mass):
        below += value
        if below > target:
            return token
    raise AssertionError("u is below 1")


@pytest.mark.parametrize("vocabulary", [2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_are_those_of_exact_numbers(vocabulary: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits_NV = 3 * torch.randn(64, vocabulary, generator=generator)
    u_N = torch.as_tensor(np.random.default_rng(0).random(64))
    token_N, logp_N = choose(logits_NV, u_N, temperature, 1.0)
    expected = [by_hand(row, float(u), temperature) for row, u in zip(logits_NV, u_N, strict=True)]
    assert token_N.tolist() == expected
    logp_NV = (logits_NV / temperature).log_softmax(-1)
    torch.testing.assert_close(logp_N, logp_NV.gather(1, token_N[:, None])[:, 0])


def test_the_ends_of_the_unit_interval_choose_tokens_that_have_mass() -> None:
    logits_NV = torch.full((4, 3 * BLOCK), -torch.inf)
    for row, token in enumerate((0, 5, BLOCK, 3 * BLOCK - 2)):
        logits_NV[row, token] = 1.0
    for u in (0.0, 0.5, float(np.nextafter(1.0, 0.0))):
        token_N, logp_N = choose(logits_NV, torch.full((4,), u, dtype=torch.float64), 1.0, 1.0)
        assert token_N.tolist() == [0, 5, BLOCK, 3 * BLOCK - 2]
        assert logp_N.tolist() == [0.0] * 4


def test_rare_tokens_of_a_large_vocabulary_are_drawn_as_often_as_they_are_likely() -> None:
    """Cumulated in float32, masses below 1e-7 of what came before would add nothing."""
    vocabulary = 150_000
    logits_NV = torch.full((1, vocabulary), -18.0)
    logits_NV[0, 0] = 0.0
    share = (vocabulary - 1) * float(np.exp(-18.0)) / (1 + (vocabulary - 1) * float(np.exp(-18.0)))
    for wanted in (10, vocabulary // 2, vocabulary - 3):
        u = 1 - share * (vocabulary - wanted - 0.5) / (vocabulary - 1)
        token_N, _ = choose(logits_NV, torch.tensor([u], dtype=torch.float64), 1.0, 1.0)
        assert abs(int(token_N) - wanted) <= 1


def test_not_a_number_is_said_and_chooses_some_token_without_an_error() -> None:
    logits_NV = torch.zeros(2, 2 * BLOCK)
    logits_NV[0, 7] = torch.nan
    token_N, logp_N = choose(logits_NV, torch.tensor([0.3, 0.3], dtype=torch.float64), 1.0, 1.0)
    assert 0 <= int(token_N[0]) < 2 * BLOCK
    assert logp_N[0].isnan() and logp_N[1].isfinite()
