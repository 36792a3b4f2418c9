"""Published figures: typed by hand, so they must at least agree with themselves and the known deltas."""

import pytest
import yaml

from score_core.report.templates import FOLDER

GROUPS = yaml.safe_load((FOLDER / "published.yaml").read_text())
ROWS = {
    (group["title"].split(",")[0], row["method"]): row
    # Of two groups on one benchmark the paper's own comes first.
    for group in reversed(GROUPS)
    for row in group["rows"]
}


def test_each_group_says_what_its_figures_are():
    metrics = {group["source"].split(",")[0]: group["metric"] for group in GROUPS}
    assert metrics["Kumar et al."] and metrics["the SCoRe authors' own"] and "Avg@32" in metrics["PAG"]
    # The two that are called accuracy where they come from.
    assert metrics["BY571/SCoRe"].startswith("mean reward")
    assert "no verifier" in metrics["MeNicefellow/SelfCorrectionLanguageModelTraining"]
    assert len(GROUPS) == 7 and all(group["metric"] for group in GROUPS)


def test_delta_is_what_flows_in_less_what_flows_out():
    flows = [row for row in ROWS.values() if "i_to_c" in row]
    assert len(flows) == 11
    for row in flows:
        assert row["t2"] - row["t1"] == pytest.approx(row["i_to_c"] - row["c_to_i"])


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
    row = ROWS[group, method]
    assert row["t2"] - row["t1"] == pytest.approx(delta)
