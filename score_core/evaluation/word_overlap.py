"""Token F1 of answers in words, reported beside accuracy, which is a matcher's yes or no."""

from collections.abc import Sequence

import pandas as pd

from score_core.answers.questions import token_f1
from score_core.evaluation.evaluate import asked_in
from score_core.evaluation.metrics import attempts_in
from score_core.problems import Problem


def word_overlap(generations: pd.DataFrame, problems: Sequence[Problem]) -> dict[str, float]:
    """`f1_t{t}`: the mean F1 of each attempt's answer, best over the references; 0 where there is no answer.

    Args:
        generations: the table of `Evaluator.evaluate`, in the order of `problems`.
    """
    found = {}
    asked = asked_in(generations, problems)
    for t in range(1, attempts_in(generations) + 1):
        answers = ["" if pd.isna(one) else str(one) for one in generations[f"extracted_t{t}"]]
        scores = [token_f1(answer, one.references) for answer, one in zip(answers, asked, strict=True)]
        found[f"f1_t{t}"] = sum(scores) / len(scores)
    return found
