"""Pair-SFT (after Welleck et al., arXiv 2211.00053): corrections put together from independent attempts.

The baseline of arXiv 2409.12917: only first attempts are sampled; a wrong one, the instruction and a right
one of the same problem make a dialogue, whose second attempt is learned. The model never said it there.
"""

from collections.abc import Sequence
from typing import Literal

from score_core.algorithms.supervised import Supervised, SupervisedSettings
from score_core.rl.algorithm import Credit, Judged


class PairSFTSettings(SupervisedSettings):
    """What the method adds to supervised ones."""

    attempts: Literal[1]
    keep_right: bool  # also pair a right first attempt with another right one


class PairSFT(Supervised):
    """Learns right attempts as corrections of others."""

    Settings = PairSFTSettings

    @property
    def turns(self) -> int:
        """A pair."""
        return 2

    def credit(self, judged: Judged) -> Credit:
        """Makes a pair of every first attempt that has a partner."""
        correct, groups = judged.correct_NT[:, 0].tolist(), judged.group_N.tolist()
        partner = partners(correct, groups, self.settings.keep_right)
        own = range(len(partner))
        source_N2 = judged.lengths_NT.new_tensor(
            [[n, n if other is None else other] for n, other in zip(own, partner, strict=True)]
        )
        chosen_N2 = judged.correct_NT.new_tensor([[False, other is not None] for other in partner])
        return self.imitate(judged, chosen_N2, judged.lengths_NT[:, 0][source_N2], source_N2)


def partners(correct: Sequence[bool], groups: Sequence[object], keep_right: bool) -> list[int | None]:
    """For each first attempt the right one of its group that becomes its correction; None for none.

    Wrong attempts take the right ones in turn, so that all of these are learned equally often. With
    `keep_right` a right attempt takes the next one, itself where it is the only one.
    """
    found: list[int | None] = [None] * len(correct)
    for group in dict.fromkeys(groups):
        members = [n for n, of in enumerate(groups) if of == group]
        right = [n for n in members if correct[n]]
        wrong = [n for n in members if not correct[n]]
        if not right:
            continue
        for at, n in enumerate(wrong):
            found[n] = right[at % len(right)]
        if keep_right:
            for at, n in enumerate(right):
                found[n] = right[(at + 1) % len(right)]
    return found
