"""Assembling, selecting and shortening dialogues, against lists."""

import random

import pytest
import torch

from score_core.rollout.trajectories import Segments, Trajectories, assemble


def draw(count: int, attempts: int, seed: int) -> tuple[list[Segments], list[list[bool]]]:
    rng = random.Random(seed)

    def ids(least: int = 1) -> list[int]:
        return [rng.randrange(5, 90) for _ in range(rng.randint(least, 6))]

    rows = []
    for _ in range(count):
        pieces = [(ids(), 0), (ids(), 1)]
        for attempt in range(2, attempts + 1):
            pieces += [(ids(), 0), (ids(), attempt)]
        rows.append(tuple(pieces))
    truncated = [[rng.random() < 0.5 for _ in range(attempts)] for _ in range(count)]
    return rows, truncated


def logp_of(rows: list[Segments]) -> list[list[list[float]]]:
    """A number a token, which tells the token."""
    return [[[-token / 100 for token in ids] for ids, turn in pieces if turn] for pieces in rows]


def put_together(rows: list[Segments], truncated: list[list[bool]], pad_id: int = 0) -> Trajectories:
    return assemble(rows, truncated, pad_id, logp=logp_of(rows))


def assert_holds(found: Trajectories, rows: list[Segments], truncated: list[list[bool]]) -> None:
    """Every field, rebuilt token by token; padding is as narrow as it can be."""
    flat = [[(token, turn) for ids, turn in pieces for token in ids] for pieces in rows]
    width = max(map(len, flat))
    assert found.input_ids_NL.shape == (len(rows), width)
    assert len(found) == len(rows)
    for n, tokens in enumerate(flat):
        empty = width - len(tokens)
        assert found.attention_mask_NL[n].tolist() == [0] * empty + [1] * len(tokens)
        assert found.input_ids_NL[n, empty:].tolist() == [token for token, _ in tokens]
        assert found.attempt_NL[n].tolist() == [0] * empty + [turn for _, turn in tokens]
        logp = [-token / 100 if turn else 0.0 for token, turn in tokens]
        assert found.logp_NL[n].tolist() == pytest.approx([0.0] * empty + logp)
        sums = [sum(values) for values in logp_of([rows[n]])[0]]
        assert found.logp_NT[n].tolist() == pytest.approx(sums)
        assert found.position_ids_NL[n].tolist() == [0] * empty + list(range(len(tokens)))
        attempts = [ids for ids, turn in rows[n] if turn]
        assert found.attempts[n] == attempts
        assert found.lengths_NT[n].tolist() == [len(ids) for ids in attempts]
    assert found.truncated_NT.tolist() == truncated
    assert found.segments == tuple(rows)


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_assemble(attempts, seed):
    rows, truncated = draw(5, attempts, seed)
    assert_holds(put_together(rows, truncated), rows, truncated)


@pytest.mark.parametrize("chosen", [[2], [0, 1], [4, 1, 3], [3, 3], [0, 1, 2, 3, 4]])
def test_select(chosen):
    rows, truncated = draw(5, 2, seed=7)
    found = put_together(rows, truncated).select(chosen)
    assert_holds(found, [rows[n] for n in chosen], [truncated[n] for n in chosen])


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_upto(attempt):
    rows, truncated = draw(5, 3, seed=8)
    found = put_together(rows, truncated).upto(attempt)
    assert_holds(found, [pieces[: 2 * attempt] for pieces in rows], [row[:attempt] for row in truncated])


def test_the_pad_id_makes_no_difference_to_anything_that_counts():
    rows, truncated = draw(4, 2, seed=9)
    one, other = (assemble(rows, truncated, pad_id=pad) for pad in (0, 50))
    assert torch.equal(one.attention_mask_NL, other.attention_mask_NL)
    assert torch.equal(one.attempt_NL, other.attempt_NL)
    real = one.attention_mask_NL.bool()
    assert torch.equal(one.input_ids_NL[real], other.input_ids_NL[real])


def test_an_empty_attempt_has_no_tokens():
    found = assemble([(([5, 6], 0), ([], 1), ([7], 0), ([8], 2))], [[False, False]], pad_id=0)
    assert found.lengths_NT.tolist() == [[0, 1]]
    assert found.attempts == [[[], [8]]]
