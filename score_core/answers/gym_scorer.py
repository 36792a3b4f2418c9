"""The matcher `reasoning_gym`: right is what the scorer of the library's data set gives all of its points.

Scorers take any time on what a model writes, so helper processes ask them, under the limit of
`reward.seconds`. Some run answers as Python (`eval`, sympy's parser), with all that this user may do: they
are refused, unless `reward.sandbox: none` accepts the risk.
"""

import inspect
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from score_core.answers.gym import dataset, library, scorer
from score_core.answers.math_equality import MathEquality
from score_core.config.reward import Reward
from score_core.errors import UserError

MAX_CHARACTERS = 1 << 16  # of an answer
_RUNS_CODE = re.compile(r"\b(?:eval|exec|parse_expr|sympify|simplify|Poly)\s*\(")
WARM = [("", "")]  # reads the library, before a limit counts


class GymScorer:
    """Asks the data set's own scorer, whose gold answers `score_core/data/gym_sets.py` writes.

    Raises:
        UserError: the library is not installed.
    """

    whole_golds = True
    complaint = "is not given all points by its own scorer, asked"

    def __init__(self, settings: Reward) -> None:
        library()
        self._risked = settings.sandbox == "none"
        self._scored = MathEquality(settings.seconds, __name__)

    def normalise(self, answer: str) -> str | None:
        """The answer without white space around it; None if there is none, or it is too long."""
        text = answer.strip()
        return text if text and (len(text) <= MAX_CHARACTERS or _entry(text) is not None) else None

    def equal_all(self, golds: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Whether each answer has all points.

        Raises:
            UserError: the data set's scorer runs answers as code, and nobody has accepted that.
        """
        for name, options in {_key(gold) for gold in golds}:
            if not self._risked and runs_code(name, options):
                raise UserError(
                    f"data.dataset: the scorer of {name} runs answers as Python, outside any sandbox; set "
                    "reward.matcher to another one, or accept the risk with reward.sandbox: none."
                )
        pairs = list(zip(golds, answers, strict=True))
        found = dict(self._scored.verdicts(pairs))
        return [bool(found[pair]) for pair in pairs]

    def readable_all(self, golds: Sequence[str]) -> list[bool]:
        """Whether each gold answer's own answer has all points."""
        entries = [_entry(gold) for gold in golds]
        own = [gold for gold, entry in zip(golds, entries, strict=True) if entry is not None]
        right = self.equal_all(own, [str(entry["answer"]) for entry in entries if entry is not None])
        by_gold = dict(zip(own, right, strict=True))
        return [by_gold.get(gold, False) for gold in golds]


def equal(gold: str, answer: str) -> bool:
    """Whether the scorer gives all points; called in a helper process."""
    library()
    try:
        entry = json.loads(gold)
        score = scorer(entry["dataset"], json.dumps(entry["options"]))(answer, entry)
    except Exception:
        return False  # whatever it makes of what a model has written, no points
    return float(score) >= 1.0 - 1e-9


def runs_code(name: str, options: str) -> bool:
    """Whether the module of the data set's scorer holds anything that runs text as Python."""
    made: Any = dataset(name, json.loads(options), 0, 1)
    module = sys.modules[type(made).score_answer.__module__]
    return _RUNS_CODE.search(inspect.getsource(module)) is not None


def _key(gold: str) -> tuple[str, str]:
    entry = json.loads(gold)
    return entry["dataset"], json.dumps(entry["options"])


def _entry(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
        return found if {"dataset", "options", "answer", "metadata"} <= found.keys() else None
    except (ValueError, AttributeError):
        return None
