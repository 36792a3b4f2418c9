"""What a step logs of a policy that judges itself; its other figures are checked in test_trainer.py."""

import torch
from accelerate import Accelerator

from score_core.rewards.tournament import Game
from score_core.rl.figures import StepFigures


def test_what_is_logged_says_whether_verdicts_mean_anything() -> None:
    """Six answers, the second and the fourth of them right; the shares are counted by hand."""
    figures = StepFigures(["t1"], Accelerator(cpu=True))
    correct_NT = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])[:, None]
    games = [
        Game(0, 1, 0.0), Game(1, 0, 1.0),  # the right one wins in both places
        Game(2, 3, 1.0), Game(3, 2, 1.0),  # the first place wins twice, once against the right answer
        Game(4, 5, 0.5), Game(5, 4, None),
    ]  # fmt: skip
    figures.add_games([games], correct_NT)
    assert figures.values == {
        "judge_unread_t1": 1 / 6,
        "judge_first_t1": 3.5 / 5,
        "judge_position_t1": 1 / 2,
        "judge_agreement_t1": 3 / 4,
    }
    nothing = StepFigures(["t1"], Accelerator(cpu=True))
    nothing.add_games([], correct_NT)
    nothing.add_games([[Game(0, 2, None)]], correct_NT)
    assert nothing.values == {"judge_unread_t1": 1.0}, "nothing is made up where no pair tells"
