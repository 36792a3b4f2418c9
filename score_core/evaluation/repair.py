"""Repair: what a model makes of a wrong program that it is shown as its own first attempt (MBPP-R).

Kumar et al. (arXiv 2409.12917) report it beside HumanEval: the share of wrong programs of another model that
are right after one correction.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from score_core.answers.code_tests import Suite
from score_core.evaluation.evaluate import Evaluator
from score_core.evaluation.metrics import effective_count, wilson
from score_core.problems import Problem


def repair(evaluator: Evaluator, problems: Sequence[Problem]) -> pd.DataFrame:
    """The table of `Evaluator.evaluate`, whose first attempts are the problems' wrong programs.

    Raises:
        UserError: as there.
    """
    suites = [Suite.of_text(problem.references[0]) for problem in problems]
    given = ["" if suite is None else suite.wrong_answer for suite in suites]
    return evaluator.evaluate(problems, given=given)


def summarise_repair(generations: pd.DataFrame) -> dict[str, Any]:
    """`repair_n`, `repair_accuracy` with its interval in `ci95`, and `repair_unchanged`, the share kept."""
    ids, right = generations["id"], generations["correct_t2"]
    share = float(right.mean())
    unchanged = generations["extracted_t1"] == generations["extracted_t2"]
    return {
        "repair_n": ids.nunique(),
        "repair_accuracy": share,
        "repair_unchanged": float(unchanged.mean()),
        "ci95": {"repair_accuracy": list(wilson(share, effective_count(right, ids)))},
    }
