"""Reward terms of length and repetition, with the values that Open-R1 and SR-R1 use."""

import math

from score_core.answers.answer_part import MAX_CHARACTERS
from score_core.rewards.group import Group

COSINE_TOKENS = 1000  # from which length on nothing changes any more
RIGHT_SHORT, RIGHT_LONG = 1.0, 0.5
WRONG_SHORT, WRONG_LONG = -0.5, 0.0
NGRAM, REPETITION = 3, -1.0


def cosine_length(group: Group) -> list[float]:
    """By the sampled tokens along half a cosine: right 1 to 0.5, so be short; wrong -0.5 to 0, so think more.

    After Yeo et al., arXiv 2502.03373.
    """
    return [_cosine(length, right) for length, right in zip(group.lengths, group.correct, strict=True)]


def repetition(group: Group) -> list[float]:
    """Minus the share of 3-grams of words that stood in the text before; 0 to -1."""
    return [_repetition(text[:MAX_CHARACTERS]) for text in group.texts]


def _cosine(length: int, right: bool) -> float:
    short, long = (RIGHT_SHORT, RIGHT_LONG) if right else (WRONG_SHORT, WRONG_LONG)
    progress = min(1.0, length / COSINE_TOKENS)
    return long + 0.5 * (short - long) * (1 + math.cos(math.pi * progress))


def _repetition(text: str) -> float:
    words = text.lower().split()
    ngrams = list(zip(*(words[start:] for start in range(NGRAM)), strict=False))
    return REPETITION * (1 - len(set(ngrams)) / len(ngrams)) if ngrams else 0.0
