"""Reward terms that pay the form of an answer: tags, steps. All take linear time."""

import re

from score_core.answers.answer_part import MAX_CHARACTERS
from score_core.rewards.group import Group

_STEP = re.compile(r"Step [0-9]{1,3}:|^[0-9]{1,3}\.|^[-*]|First,|Second,|Next,|Finally,", re.MULTILINE)
STEPS_WANTED = 3
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_and_match(group: Group) -> list[float]:
    """0.25 for a think pair, 0.25 for exactly one answer pair, 0.5 for a right answer."""
    return [
        0.25 * _any_pair(text, "think") + 0.25 * _one_pair(text, "answer") + 0.5 * correct
        for text, correct in zip(group.texts, group.correct, strict=True)
    ]


def strict_format_and_match(group: Group) -> list[float]:
    """0.5 if the text is one think block, then one answer block, and nothing else; 0.5 for a right answer."""
    return [
        0.5 * _is_two_blocks(text) + 0.5 * correct
        for text, correct in zip(group.texts, group.correct, strict=True)
    ]


def format(group: Group) -> list[float]:
    """1 if the text is one think block, then one answer block, and nothing else."""
    return [float(_is_two_blocks(text)) for text in group.texts]


def tag_count(group: Group) -> list[float]:
    """0.25 for each of the four tags that stands in the text exactly once."""
    return [0.25 * sum(text.count(tag) == 1 for tag in _TAGS) for text in group.texts]


def reasoning_steps(group: Group) -> list[float]:
    """A third for each step that is marked as one (`Step 2:`, `3.`, a bullet, `First,`), up to 1."""
    counts = [len(_STEP.findall(text[:MAX_CHARACTERS])) for text in group.texts]
    return [min(1.0, count / STEPS_WANTED) for count in counts]


def _any_pair(text: str, tag: str) -> bool:
    start = text.find(f"<{tag}>")
    return start >= 0 and text.find(f"</{tag}>", start) >= 0


def _one_pair(text: str, tag: str) -> bool:
    """Whether `tag` opens once and closes once, in this order."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    return text.count(opening) == text.count(closing) == 1 and text.index(opening) < text.index(closing)


def _is_two_blocks(text: str) -> bool:
    text = text.strip()
    if not (text.startswith("<think>") and text.endswith("</answer>")):
        return False
    if not (_one_pair(text, "think") and _one_pair(text, "answer")):
        return False
    between = text[text.index("</think>") + len("</think>") : text.index("<answer>")]
    return text.index("</think>") < text.index("<answer>") and not between.strip()
