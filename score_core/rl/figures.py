"""The figures of one optimiser step, attempt by attempt: what training logs."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from score_core.rewards.tournament import Game, agreement, first_share, position_share, unread_share
from score_core.rl.algorithm import Credit, Judged
from score_core.rl.logprobs import TokenScores
from score_core.rl.objective import kl_term
from score_core.rollout.roll_out import Rollout


class StepFigures:
    """Means over a step's trajectories, and sums over its micro-batches.

    Args:
        labels: of the turns of a dialogue that is trained on, as `Conversation.labels` gives them.
        accelerator: of the processes that share the step.
    """

    def __init__(self, labels: Sequence[str], accelerator: Accelerator) -> None:
        self.values: dict[str, float] = {}
        self.labels = labels
        self.accelerator = accelerator
        self._sums_T3 = torch.zeros(len(labels), 3, device=accelerator.device)

    @classmethod
    def of(cls, rollout: Rollout, judged: Judged, credit: Credit, accelerator: Accelerator) -> "StepFigures":
        """The figures known before the first micro-batch; every process must call."""
        labels = rollout.labels
        if credit.source_MS is not None:  # put together from attempts
            labels = [f"t{attempt}" for attempt in range(1, credit.source_MS.shape[1] + 1)]
        figures = cls(labels, accelerator)
        figures.add_means("reward", judged.rewards_NT)
        figures.add_means("return", credit.returns_MS)
        figures.add_means("accuracy", judged.correct_NT)
        figures.add_means("changed", judged.changed_NT, labels=figures.attempts[1:])
        figures.add_means("length", judged.lengths_NT)
        if len(figures.attempts) < len(labels):
            figures.add_means("revised", judged.held_NT[:, 2::2], labels=figures.attempts[1:])
        figures.add_means("truncated", accelerator.gather(rollout.trajectories.truncated_NT))
        figures.add_games(rollout.games, judged.correct_NT)
        if judged.reference_logp_NT is not None:
            figures.add_means("kl", judged.logp_NT - judged.reference_logp_NT)
        return figures

    @property
    def attempts(self) -> list[str]:
        """The labels without those of verdicts."""
        return [label for label in self.labels if label.startswith("t")]

    def add_means(self, name: str, values_NT: Tensor, labels: Sequence[str] | None = None) -> None:
        """Takes the mean of each column as `<name>_<label>`; of fewer columns than labels, the first."""
        means = values_NT.float().mean(0).tolist()
        self.values |= {
            f"{name}_{label}": mean for label, mean in zip(labels or self.labels, means, strict=False)
        }

    def add_games(self, games: Sequence[Sequence[Game]], correct_NT: Tensor) -> None:
        """Takes what the policy's verdicts on its answers are worth, where there are any; all must call.

        Args:
            games: this process's, by attempt.
            correct_NT: of all processes, in their order.
        """
        if not games:
            return
        shared = gather_object([games])
        share = len(correct_NT) // len(shared)
        for attempt in range(1, len(games) + 1):
            whole = [
                Game(at * share + game.first, at * share + game.second, game.score)
                for at, found in enumerate(shared)
                for game in found[attempt - 1]
            ]
            values = {
                "unread": unread_share(whole),
                "first": first_share(whole),
                "position": position_share(whole),
                "agreement": agreement(whole, correct_NT[:, attempt - 1].bool().tolist()),
            }
            for name, value in values.items():
                if value is not None:  # there were no such pairs in this step
                    self.values[f"judge_{name}_t{attempt}"] = value

    def add_scores(self, scores: TokenScores, reference: TokenScores | None, column_P: Tensor) -> None:
        """Sums KL, entropy and tokens of each attempt of a micro-batch."""
        kl_P = torch.zeros_like(scores.logp_P)
        if scores.kl_P is not None:
            kl_P = scores.kl_P
        elif reference is not None:
            # As a figure k3 is unbiased, whatever is in the loss.
            kl_P = kl_term("k3_in_loss", scores.logp_P, reference.logp_P, None)
        values_P3 = torch.stack([kl_P.detach(), scores.entropy_P, torch.ones_like(scores.entropy_P)], dim=-1)
        self._sums_T3.index_add_(0, column_P, values_P3)

    def finish(self, dialogues: int, kl_in_loss: Sequence[bool]) -> None:
        """Turns the sums over all processes into means; every process must call.

        Args:
            dialogues: trained on in the step, over all processes.
            kl_in_loss: for each turn, whether its KL was computed for the loss.
        """
        sums_T3 = self.accelerator.reduce(self._sums_T3, reduction="sum").tolist()
        for label, in_loss, (kl, entropy, tokens) in zip(self.labels, kl_in_loss, sums_T3, strict=True):
            if in_loss:
                self.values[f"kl_{label}"] = kl / dialogues
            self.values[f"entropy_{label}"] = entropy / max(tokens, 1)
