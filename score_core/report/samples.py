"""Samples of the final model's answers: which are shown, and what changed between two attempts."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from score_core.report.labels import OUTCOMES
from score_core.report.visible import visible

# The kinds of answers shown, in this order: (right at the first attempt, right at the last).
KINDS = {
    (False, True): "Corrected",
    (True, False): "Spoiled",
    (True, True): "Kept",
    (False, False): "Not found",
}

# Above this many characters texts are compared word by word: single letters in common mean nothing.
CHARACTERS_COMPARED = 48


@dataclass(frozen=True)
class Attempt:
    """One attempt; `pieces` cut its text by whether it differs from the attempt before."""

    number: int
    text: str
    pieces: list[tuple[str, bool]]
    extracted: str | None
    correct: bool


@dataclass(frozen=True)
class Sample:
    """One problem and what the model made of it."""

    id: str
    problem: str
    answer: str
    attempts: list[Attempt]

    @property
    def long(self) -> bool:
        """Whether its texts need room to stand side by side."""
        return any(
            len(text) > CHARACTERS_COMPARED for text in (self.problem, *(a.text for a in self.attempts))
        )


@dataclass(frozen=True)
class Kind:
    """Samples of one kind, and how many problems are of it."""

    name: str
    total: int
    samples: list[Sample]


def choose_samples(generations: pd.DataFrame, attempts: int, count: int) -> list[Kind]:
    """Up to `count` samples of each kind, which the first attempt and the last decide.

    They come in the order of a hash of their ids: the same every time, and nobody's choice. Of several
    dialogues of a problem the first counts.
    """
    generations = generations.drop_duplicates("id")
    order = generations["id"].map(lambda name: hashlib.sha256(str(name).encode()).hexdigest())
    shuffled = generations.loc[order.sort_values(kind="stable").index]
    first, last = shuffled["correct_t1"], shuffled[f"correct_t{attempts}"]
    kinds = []
    for (a, b), name in KINDS.items():
        rows = shuffled[(first == a) & (last == b)]
        chosen = rows.head(count).to_dict("records")
        kinds.append(
            Kind(f"{name}: {OUTCOMES[a, b]}", len(rows), [sample_of(row, attempts) for row in chosen])
        )
    return kinds


def changes(before: str, after: str) -> list[tuple[str, bool]]:
    """`after` in pieces, each with whether it differs from `before`; the pieces join to `after`."""
    pattern = r"." if max(len(before), len(after)) <= CHARACTERS_COMPARED else r"\s+|\w+|[^\w\s]"
    old, new = (re.findall(pattern, text, flags=re.DOTALL) for text in (before, after))
    pieces = []
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for tag, _, _, start, end in matcher.get_opcodes():
        if start < end:
            pieces.append(("".join(new[start:end]), tag != "equal"))
    return pieces


def sample_of(row: Mapping[str, Any], attempts: int) -> Sample:
    """A row of generations as people see it: control characters visible, changes in pieces."""
    shown: list[Attempt] = []
    for t in range(1, attempts + 1):
        text, extracted = visible(str(row[f"text_t{t}"])), row[f"extracted_t{t}"]
        pieces = changes(shown[-1].text, text) if shown else [(text, False)]
        read = visible(extracted) if isinstance(extracted, str) else None
        shown.append(Attempt(t, text, pieces, read, bool(row[f"correct_t{t}"])))
    return Sample(str(row["id"]), visible(str(row["problem"])), visible(str(row["answer"])), shown)
