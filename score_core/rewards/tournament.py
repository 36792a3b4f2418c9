"""A judge's verdicts on pairs of answers as a rating of each: the self-judge of SR-R1, and better ones.

A *game* is one verdict: an answer shown first, another shown second, and the share of the win that goes to
the first. Ratings say nothing about whether an answer is right, which is the verifier's to say; `agreement`
tells how far the judge is from it, and `position_share` how much it only follows the order of the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

ELO_K, ELO_SCALE, ELO_PASSES = 16.0, 400.0, 10  # the published settings
WINS = {"first": 1.0, "tie": 0.5, "second": 0.0}
_VERDICT = re.compile(r"\bverdict\s*:[\s*_]*(first|second|tie)\b[\s*_.!]*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Game:
    """One verdict.

    Attributes:
        first, second: the answers' numbers in their group, in the order in which they were shown.
        score: what the first one gets, 1, 0.5 or 0; None where the verdict cannot be read: it counts nowhere.
    """

    first: int
    second: int
    score: float | None


def pairings(count: int, both_orders: bool) -> list[tuple[int, int]]:
    """Who is shown with whom, (first, second): every pair of a group once, or in both orders."""
    pairs = list(combinations(range(count), 2))
    return pairs + [(second, first) for first, second in pairs] if both_orders else pairs


def read_verdict(text: str) -> float | None:
    """What the first answer gets by the judge's last line `Verdict: first`, `second` or `tie`.

    None where there is no such line, or where two of them disagree: a guess would favour one place.
    """
    found = {WINS[word.lower()] for word in _VERDICT.findall(text)}
    return found.pop() if len(found) == 1 else None


def elo_sequential(games: Sequence[Game], count: int) -> np.ndarray:
    """Elo ratings (count,) as published: from 0, game after game, so that the order of the games matters."""
    rating_C = np.zeros(count)
    for _ in range(ELO_PASSES):
        for game in _read(games):
            _update(rating_C, rating_C, game)
    return rating_C


def elo(games: Sequence[Game], count: int) -> np.ndarray:
    """Elo ratings (count,) in which all games of a pass meet the ratings of the pass before."""
    rating_C = np.zeros(count)
    for _ in range(ELO_PASSES):
        before_C = rating_C.copy()
        # In one order whatever was given, since floating-point sums depend on it.
        for game in sorted(_read(games), key=lambda one: (one.first, one.second, one.score)):
            _update(rating_C, before_C, game)
    return rating_C


def win_rate(games: Sequence[Game], count: int) -> np.ndarray:
    """The share of its games that each has won (count,), a tie being half; 0.5 without games."""
    won_CC = _won(games, count)
    played_C = (won_CC + won_CC.T).sum(1)
    return np.divide(won_CC.sum(1), played_C, out=np.full(count, 0.5), where=played_C > 0)


def bradley_terry(games: Sequence[Game], count: int, prior: float = 0.5) -> np.ndarray:
    """Log-strengths (count,) that make the verdicts most likely: P(i beats j) = s_i / (s_i + s_j).

    Each has also won and lost `prior` games against an opponent of strength 1, so that who won all has a
    finite one. By minorisation-maximisation (Hunter 2004), which converges whatever the verdicts.
    """
    won_CC = _won(games, count)
    played_CC, strength_C = won_CC + won_CC.T, np.ones(count)
    for _ in range(10_000):
        met_C = (played_CC / (strength_C[:, None] + strength_C[None, :])).sum(1)
        renewed_C = (won_CC.sum(1) + prior) / (met_C + 2 * prior / (strength_C + 1))
        done = np.allclose(renewed_C, strength_C, rtol=1e-12, atol=0)
        strength_C = renewed_C
        if done:
            break
    return np.log(strength_C)


RATINGS: dict[str, Callable[[Sequence[Game], int], np.ndarray]] = {
    "elo_sequential": elo_sequential,
    "elo": elo,
    "win_rate": win_rate,
    "bradley_terry": bradley_terry,
}


def scaled(rating_C: np.ndarray, top: float) -> np.ndarray:
    """Ratings as rewards from 0 to `top` (published: 3); half of it where all are equal."""
    low, high = rating_C.min(), rating_C.max()
    if high - low <= 1e-9 * max(1.0, abs(high)):
        return np.full(rating_C.shape, top / 2)
    return top * (rating_C - low) / (high - low)


def unread_share(games: Sequence[Game]) -> float:
    """The share of verdicts that could not be read."""
    return sum(game.score is None for game in games) / max(1, len(games))


def first_share(games: Sequence[Game]) -> float | None:
    """The mean share of the win that goes to the answer shown first: half, if places do not matter."""
    scores = [game.score for game in games if game.score is not None]
    return sum(scores) / len(scores) if scores else None


def position_share(games: Sequence[Game]) -> float | None:
    """Of pairs with a winner in both orders, the share in which the same *place* won both times.

    0 for a judge that looks at answers alone, 1 for one that looks at places alone; None without such pairs.
    """
    scores = {(game.first, game.second): game.score for game in games if game.score in (0.0, 1.0)}
    twice = [
        (score, scores[second, first])
        for (first, second), score in scores.items()
        if first < second and (second, first) in scores
    ]
    return sum(one == other for one, other in twice) / len(twice) if twice else None


def agreement(games: Sequence[Game], correct: Sequence[bool]) -> float | None:
    """The mean share of the win that a right answer gets against a wrong one; None where none met."""
    shares = [
        game.score if correct[game.first] else 1 - game.score
        for game in games
        if game.score is not None and correct[game.first] != correct[game.second]
    ]
    return sum(shares) / len(shares) if shares else None


def _read(games: Sequence[Game]) -> list[Game]:
    return [game for game in games if game.score is not None]


def _update(rating_C: np.ndarray, against_C: np.ndarray, game: Game) -> None:
    """Moves two ratings by K (score - expected), expected = 1 / (1 + 10^((other - own) / scale))."""
    assert game.score is not None
    gap = against_C[game.second] - against_C[game.first]
    moved = ELO_K * (game.score - 1 / (1 + 10 ** (gap / ELO_SCALE)))
    rating_C[game.first] += moved
    rating_C[game.second] -= moved


def _won(games: Sequence[Game], count: int) -> np.ndarray:
    """How often each has beaten each other, a tie being half a win of both, (count, count)."""
    won_CC = np.zeros((count, count))
    for game in _read(games):
        assert game.score is not None
        won_CC[game.first, game.second] += game.score
        won_CC[game.second, game.first] += 1 - game.score
    return won_CC
