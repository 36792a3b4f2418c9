"""The votes of more samples, against counting by hand."""

import pandas as pd
import pytest

from score_core.evaluation.budgets import budgets


def table(**problems: list[tuple[str | None, str | None]]) -> pd.DataFrame:
    """A dialogue is its two answers; "right" is right, whatever its case and white space."""
    rows = []
    for name, dialogues in problems.items():
        for sample, answers in enumerate(dialogues, start=1):
            row: dict[str, object] = {"id": name, "sample": sample}
            for attempt, answer in enumerate(answers, start=1):
                row[f"extracted_t{attempt}"] = answer
                row[f"correct_t{attempt}"] = (answer or "").strip().lower() == "right"
            rows.append(row)
    return pd.DataFrame(rows)


def test_the_majority_counts_and_sets_are_averaged() -> None:
    found = budgets(
        table(
            a=[("right", "no"), ("no", "right"), (" RIGHT", "right"), ("other", "right")],
            b=[("no", "right"), ("no", "no"), ("right", "no"), (None, None)],
        )
    )
    assert [*found] == ["2", "4"]
    # Of two first attempts the earlier wins a tie: a right, right; b no, right. Single corrections: 3/4, 1/4.
    assert found["2"]["parallel"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["2"]["sequential"] == pytest.approx((0.75 + 0.25) / 2)
    # All four: a right twice, b no twice; of two corrections: a no, right; b right, no.
    assert found["4"]["parallel"] == pytest.approx(0.5)
    assert found["4"]["sequential"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["4"]["gain"] == pytest.approx(0.0)


def test_intervals_are_over_problems_and_the_gain_is_paired() -> None:
    dialogues = {f"p{at}": [("right", "right")] * 2 for at in range(5)}
    dialogues |= {f"q{at}": [("no", "right")] * 2 for at in range(5)}
    found = budgets(table(**dialogues))["2"]
    spread = pd.Series([1.0] * 5 + [0.0] * 5).sem() * 1.959963984540054
    assert found["parallel_ci95"] == pytest.approx(spread)
    assert found["sequential_ci95"] == 0.0
    assert found["gain"] == 0.5 and found["gain_ci95"] == pytest.approx(spread)


def test_what_cannot_be_read_has_no_vote_and_is_never_right() -> None:
    found = budgets(table(a=[(None, None), (None, None)], b=[(None, None), ("right", "right")]))
    assert found["2"]["parallel"] == 0.5
    assert found["2"]["sequential"] == 0.25


def test_one_dialogue_a_problem_has_no_budgets() -> None:
    assert budgets(table(a=[("right", "right")]).drop(columns="sample")) == {}
