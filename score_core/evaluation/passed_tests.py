"""The share of a problem's tests that programs pass, reported beside accuracy, which wants all of them."""

from collections.abc import Sequence

import pandas as pd

from score_core.answers.code_tests import CodeTests, share_passed
from score_core.config.reward import Reward
from score_core.evaluation.evaluate import asked_in
from score_core.evaluation.metrics import attempts_in
from score_core.problems import Problem


def passed_tests(
    generations: pd.DataFrame, problems: Sequence[Problem], settings: Reward
) -> dict[str, float]:
    """`tests_passed_t{t}`: the mean share over the problems at each attempt; 0 where there is no program.

    Args:
        generations: the table of `Evaluator.evaluate`, in the order of `problems`.
    """
    judge = CodeTests(settings)
    asked = asked_in(generations, problems)
    found = {}
    for t in range(1, attempts_in(generations) + 1):
        programs = [None if pd.isna(one) else str(one) for one in generations[f"extracted_t{t}"]]
        pairs = [
            (gold, program)
            for problem, program in zip(asked, programs, strict=True)
            for gold in problem.references
            if program is not None
        ]
        # What another process has judged is not known in this one.
        judge.equal_all([gold for gold, _ in pairs], [program for _, program in pairs])
        shares = [share_passed(one.references, program) for one, program in zip(asked, programs, strict=True)]
        found[f"tests_passed_t{t}"] = sum(shares) / len(shares)
    return found
