"""Ratings by a judge's verdicts, against oracles of their own and the guarantees that they are held to."""

import math
import random

import numpy as np
import pytest

from score_core.rewards.tournament import (
    RATINGS,
    Game,
    agreement,
    bradley_terry,
    elo_sequential,
    pairings,
    position_share,
    read_verdict,
    scaled,
    unread_share,
    win_rate,
)

FAIR = sorted(RATINGS.keys() - {"elo_sequential"})


def played(count: int, score: object, both_orders: bool = True) -> list[Game]:
    """A judge's whole tournament; `score` of (first, second)."""
    return [Game(*pair, score(*pair)) for pair in pairings(count, both_orders)]  # type: ignore[operator]


def some(seed: int, count: int = 5) -> list[Game]:
    rng = random.Random(seed)
    return played(count, lambda first, second: rng.choice([0.0, 0.5, 1.0, 1.0, None]))


@pytest.mark.parametrize("name", FAIR)
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_a_judge_that_always_says_the_same_place_gives_equal_ratings(name: str, place: float) -> None:
    games = played(5, lambda first, second: place)
    ratings = RATINGS[name](games, 5)
    assert ratings == pytest.approx(ratings[0], abs=1e-9)
    assert scaled(ratings, 3.0) == pytest.approx([1.5] * 5)
    assert position_share(games) == 1.0


@pytest.mark.parametrize("name", FAIR)
def test_ratings_do_not_depend_on_the_order_of_the_games(name: str) -> None:
    for seed in range(20):
        games = some(seed)
        mixed = random.Random(seed + 100).sample(games, len(games))
        assert RATINGS[name](mixed, 5).tolist() == RATINGS[name](games, 5).tolist()


@pytest.mark.parametrize("name", FAIR)
def test_ratings_do_not_depend_on_who_has_which_number(name: str) -> None:
    for seed in range(20):
        games, to = some(seed), random.Random(seed).sample(range(5), 5)
        renamed = [Game(to[game.first], to[game.second], game.score) for game in games]
        assert RATINGS[name](renamed, 5)[to] == pytest.approx(RATINGS[name](games, 5), abs=1e-9)


@pytest.mark.parametrize("name", sorted(RATINGS))
def test_who_is_better_is_rated_higher(name: str) -> None:
    ratings = RATINGS[name](played(4, lambda first, second: float(first > second)), 4)
    assert (np.diff(ratings) > 0).all()
    assert scaled(ratings, 3.0)[[0, -1]].tolist() == [0.0, 3.0]


def test_published_elo_step_by_step() -> None:
    """Two games by hand, in the published formula; ten passes."""
    rating = [0.0, 0.0]
    for _ in range(10):
        for first, second, score in ((0, 1, 1.0), (1, 0, 0.5)):
            expected = 1 / (1 + 10 ** ((rating[second] - rating[first]) / 400))
            rating[first] += 16 * (score - expected)
            rating[second] += 16 * ((1 - score) - (1 - expected))
    assert elo_sequential([Game(0, 1, 1.0), Game(1, 0, 0.5)], 2) == pytest.approx(rating)


def test_bradley_terry_is_where_the_likelihood_is_flat() -> None:
    for seed in range(10):
        games = some(seed)
        rating = bradley_terry(games, 5)

        def log_likelihood(theta: np.ndarray, games: list[Game] = games) -> float:
            total = 0.0
            for game in games:
                if game.score is not None:
                    gap = theta[game.first] - theta[game.second]
                    total -= game.score * math.log1p(math.exp(-gap))
                    total -= (1 - game.score) * math.log1p(math.exp(gap))
            # Half a game won and half a game lost against strength 1.
            return total - sum(0.5 * (math.log1p(math.exp(-t)) + math.log1p(math.exp(t))) for t in theta)

        for member in range(5):
            step = np.eye(5)[member] * 1e-5
            slope = (log_likelihood(rating + step) - log_likelihood(rating - step)) / 2e-5
            assert slope == pytest.approx(0, abs=1e-6)


def test_win_rates_count_ties_as_half_and_leave_out_what_cannot_be_read() -> None:
    games = [Game(0, 1, 1.0), Game(1, 0, 0.5), Game(0, 2, None)]
    assert win_rate(games, 3).tolist() == [0.75, 0.25, 0.5]
    assert unread_share(games) == pytest.approx(1 / 3)
    assert unread_share([]) == 0.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Both are long.\nVerdict: first", 1.0),
        ("Verdict: second.", 0.0),
        ("**Verdict:** TIE", 0.5),
        ("verdict: **Second**\n", 0.0),
        ("The first is better than the second.", None),
        ("Verdict: first or second", None),
        ("Verdict: first\nVerdict: second", None),
        ("Verdict: first\nOn reflection it stays so.\nVerdict: first", 1.0),
        ("Verdict: A", None),
        ("", None),
    ],
)
def test_verdicts_are_read_without_favour(text: str, score: float | None) -> None:
    assert read_verdict(text) == score
    swapped = {"first": "second", "second": "first"}
    words = [swapped.get(word.lower().strip("*.\n"), word) for word in text.split(" ")]
    if score is not None and "\n" not in text.strip():
        assert read_verdict(" ".join(words)) == 1 - score


def test_what_tells_whether_the_reward_means_anything() -> None:
    correct = [True, False, False, True]
    honest = played(4, lambda first, second: 0.5 + 0.5 * (correct[first] - correct[second]))
    assert agreement(honest, correct) == 1.0 and position_share(honest) == 0.0
    flattering = played(4, lambda first, second: 1.0)
    assert agreement(flattering, correct) == 0.5 and position_share(flattering) == 1.0
    assert agreement(honest, [True] * 4) is None
    assert position_share(played(4, lambda first, second: 1.0, both_orders=False)) is None
    assert len(pairings(5, both_orders=False)) == 10 and len(set(pairings(5, both_orders=True))) == 20
