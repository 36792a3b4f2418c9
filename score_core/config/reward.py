"""The section `reward`: when an answer is right, and what training pays for."""

from typing import Literal

from score_core.config.section import Positive, Section


class Term(Section):
    """One of the rewards that are added."""

    name: str
    weight: float


class Reward(Section):
    """Correctness is an extractor and a matcher; a training reward is the weighted sum of `terms`."""

    extractor: Literal["last_integer", "gsm8k_hash", "math_final_answer", "identity"]
    matcher: Literal["integer", "math", "exact"]
    marker: str  # what `math_final_answer` looks for
    seconds: Positive  # the time limit of one comparison
    terms: tuple[Term, ...]
