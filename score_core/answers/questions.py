"""Answers to questions in words, as SQuAD normalises them (Rajpurkar et al., arXiv 1606.05250)."""

import re
import string
from collections import Counter
from collections.abc import Iterable

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def tokens(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def token_f1(answer: str, references: Iterable[str]) -> float:
    """The harmonic mean of precision and recall over tokens, best over `references`; 0 without any token."""
    return max((_f1(Counter(tokens(answer)), Counter(tokens(gold))) for gold in references), default=0.0)


def _f1(answer: Counter[str], gold: Counter[str]) -> float:
    common = (answer & gold).total()
    return 2 * common / (answer.total() + gold.total()) if common else 0.0
