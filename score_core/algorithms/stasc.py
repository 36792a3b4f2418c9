"""STaSC (arXiv 2503.08681): iterations of fine-tuning on corrections that pass a filter, by their reward.

Each iteration samples corrections from the model of the one before. The first attempts that they correct come
from it too (*evolving*), or all from the base model (*fixed*: `offline_first_attempts: 1.0`).
"""

from typing import Literal

from score_core.algorithms.supervised import Supervised, SupervisedSettings
from score_core.config.section import NonNegative
from score_core.rl.algorithm import Credit, Judged


class StascSettings(SupervisedSettings):
    """What the method adds to supervised ones."""

    # improving: r2 > r1; non_decreasing: that, or r2 = r1 >= threshold
    filter: Literal["improving", "non_decreasing"]
    threshold: NonNegative  # t, of a reward; counts for non_decreasing only


class Stasc(Supervised):
    """Learns the last attempts that earn more than the one before, or as much."""

    Settings = StascSettings

    def credit(self, judged: Judged) -> Credit:
        """Chooses by the reward, which may be partial."""
        before_N, after_N = judged.rewards_NT[:, -2], judged.rewards_NT[:, -1]
        chosen_N = after_N > before_N
        if self.settings.filter == "non_decreasing":
            chosen_N = chosen_N | ((after_N == before_N) & (after_N >= self.settings.threshold))
        return self.imitate_last(judged, chosen_N)
