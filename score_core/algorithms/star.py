"""STaR on corrections (after Zelikman et al., arXiv 2203.14465): fine-tuning on those that came out right.

The baseline of arXiv 2409.12917: both attempts are sampled, and last ones are learned that are right after a
wrong one.
"""

from score_core.algorithms.supervised import Supervised, SupervisedSettings
from score_core.rl.algorithm import Credit, Judged


class StarSettings(SupervisedSettings):
    """What the method adds to supervised ones."""

    keep_right: bool  # also learn from last attempts that stayed right: the right -> right pairs


class Star(Supervised):
    """Learns the last attempts that are right."""

    Settings = StarSettings

    def credit(self, judged: Judged) -> Credit:
        """Chooses by the verifier, not by the reward."""
        chosen_N = judged.correct_NT[:, -1]
        if not self.settings.keep_right:
            chosen_N = chosen_N & ~judged.correct_NT[:, -2]
        return self.imitate_last(judged, chosen_N)
