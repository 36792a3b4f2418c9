"""The judge of an attempt: is it right, and what training reward does that earn?

Right or wrong is binary and is what accuracy counts. The reward may add credit for the form of the
answer and is kept apart from it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from score_core.answers.extractors import extractor
from score_core.answers.matchers import matcher
from score_core.config.schema import Reward

# A gold answer without any mark of its own is taken whole if it looks like one: short, on one line.
MAX_BARE_GOLD_CHARACTERS = 200

_THINK = re.compile(r"<think>.*?</think>", re.DOTALL)
_TWO_BLOCKS = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)


class Verdict(NamedTuple):
    """What the judge says of one attempt."""

    extracted: str | None  # the normalised answer; None if there is none that can be read
    correct: bool
    reward: float  # in [0, 1]


@dataclass(frozen=True)
class Gold:
    """A data set's gold answer, or the reason why attempts cannot be judged by it."""

    answer: str | None
    reason: str = ""


class Judge:
    """Judges attempts by `reward`: an extractor, a matcher and a shape.

    The shapes, with `match` 1 for a right answer and 0 for any other:

    * `match`: `match`.
    * `format_and_match`: 0.25 for a think pair, 0.25 for exactly one answer pair, 0.5 `match`.
    * `strict_format_and_match`: 0.5 if the text is one think block, then one answer block, and
      nothing else; 0.5 `match`.
    """

    def __init__(self, reward: Reward) -> None:
        self._reward = reward
        self._extract = extractor(reward)
        self._matcher = matcher(reward)

    def score(self, text: str, answer: str) -> Verdict:
        """Judges one attempt's text against a gold answer as `golds` prepared it."""
        return self.score_all([text], [answer])[0]

    def score_all(self, texts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Judges attempts against their gold answers, in order."""
        normalise = self._matcher.normalise
        found = [self._read(text) for text in texts]
        golds = [normalise(answer) for answer in answers]
        readable = [
            (at, gold, answer)
            for at, (gold, answer) in enumerate(zip(golds, found, strict=True))
            if gold is not None and answer is not None
        ]
        correct = [False] * len(texts)
        verdicts = self._matcher.equal_all([gold for _, gold, _ in readable], [a for _, _, a in readable])
        for (at, _, _), verdict in zip(readable, verdicts, strict=True):
            correct[at] = verdict
        return [
            Verdict(answer, right, self._shaped(text, right))
            for text, answer, right in zip(texts, found, correct, strict=True)
        ]

    def golds(self, raw: Sequence[str]) -> list[Gold]:
        """Reads a data set's gold answers as attempts are read, each to be compared with itself.

        Where the extractor's form is not in a gold answer, a short one is taken as it stands.
        """
        found = [self._read_gold(text) for text in raw]
        answers = [gold.answer for gold in found if gold.answer is not None]
        readable = iter(self._matcher.readable_all(answers))
        return [
            Gold(None, f"{gold.answer!r} cannot be compared by the matcher {self._reward.matcher}")
            if gold.answer is not None and not next(readable)
            else gold
            for gold in found
        ]

    def _read(self, text: str) -> str | None:
        extracted = self._extract(text)
        return None if extracted is None else self._matcher.normalise(extracted)

    def _read_gold(self, text: str) -> Gold:
        extracted = self._extract(text)
        if extracted is None:
            bare = text.strip()
            if not bare or len(bare) > MAX_BARE_GOLD_CHARACTERS or "\n" in bare:
                return Gold(None, f"no answer found by the extractor {self._reward.extractor}")
            extracted = bare
        answer = self._matcher.normalise(extracted)
        if answer is None:
            return Gold(None, f"{extracted[:80]!r} is no answer to the matcher {self._reward.matcher}")
        return Gold(answer)

    def _shaped(self, text: str, correct: bool) -> float:
        match = float(correct)
        if self._reward.shape == "match":
            return match
        if self._reward.shape == "format_and_match":
            return 0.25 * bool(_THINK.search(text)) + 0.25 * _one_pair(text, "answer") + 0.5 * match
        two_blocks = _one_pair(text, "think") and _one_pair(text, "answer") and _TWO_BLOCKS.fullmatch(text)
        return 0.5 * bool(two_blocks) + 0.5 * match


def _one_pair(text: str, tag: str) -> bool:
    """Whether `tag` opens once and closes once, in this order."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    once = text.count(opening) == 1 and text.count(closing) == 1
    return once and text.index(opening) < text.index(closing)
