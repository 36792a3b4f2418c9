"""Published figures: typed by hand, so they must at least agree with themselves and the known deltas."""

import pytest

from score_core.report.published import GROUPS

ROWS = {
    (group.title.split(",")[0], row.method): row
    for group in reversed(GROUPS)  # of two groups on one benchmark the paper's own comes first
    for row in group.rows
}


def test_delta_is_what_flows_in_less_what_flows_out():
    flows = [row for row in ROWS.values() if row.i_to_c is not None]
    assert len(flows) == 11
    for row in flows:
        assert row.delta == pytest.approx(row.i_to_c - row.c_to_i)


@pytest.mark.parametrize(
    ("group", "method", "delta"),
    [
        ("MATH500", "SCoRe", 4.4),
        ("MATH500", "STaR", -14.2),
        ("HumanEval", "SCoRe", 12.2),
        ("Ablations on MATH", "Without Stage I", 2.2),
        ("Ablations on MATH", "Without on-policy first attempts", 0.2),
    ],
)
def test_deltas_are_the_published_ones(group, method, delta):
    assert ROWS[group, method].delta == delta
