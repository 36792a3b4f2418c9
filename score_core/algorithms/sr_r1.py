"""SR-R1: GRPO on one attempt, the data part after part (fuyu12345/DLNLP_assignment_25, on Open-R1).

What sets it apart is its reward, to which `reward.self_judge` adds the ratings that the policy itself gives
its answers (score_core/rollout/self_judge.py). GRPO is `baseline: group_standardised`, `length_aggregation:
sequence_mean` and `kl_estimator: k3_in_loss`; without clipping, which one step a batch never reaches.
"""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from score_core.algorithms.plain_rl import PlainRL, PlainRLSettings
from score_core.config.section import Count


class SrR1Settings(PlainRLSettings):
    """What the method adds to the section `training`."""

    of: Count  # how many equal parts the training problems are divided into, in their order
    parts: Annotated[tuple[Count, ...], Field(min_length=1)]  # those trained on, one after another, from 1

    @model_validator(mode="after")
    def _parts_are_there(self) -> Self:
        if max(self.parts) > self.of:
            raise ValueError(
                f"parts: there is no part {max(self.parts)} of {self.of}; name parts from 1 to {self.of}, or "
                "raise of"
            )
        return self


class SrR1(PlainRL):
    """Plain RL that goes through the problems part by part."""

    Settings = SrR1Settings

    def parts(self, problems: int) -> Sequence[range]:
        """Each part has an equal share of the steps."""
        of = self.settings.of
        return [range(problems * (part - 1) // of, problems * part // of) for part in self.settings.parts]
