"""Accuracies, transitions and intervals, against counting by hand, root finding and the bootstrap."""

from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from score_core.evaluation.metrics import edit_ratio, effective_count, paired, summarise, wilson

Z = NormalDist().inv_cdf(0.975)


def table(outcomes: list[tuple[bool, ...]]) -> pd.DataFrame:
    """Generations with these outcomes of the attempts; a right answer is 1, a wrong one its row's number."""
    columns: dict[str, list[object]] = {"id": [f"p{number}" for number in range(len(outcomes))]}
    for turn in range(len(outcomes[0])):
        suffix = f"_t{turn + 1}"
        columns[f"correct{suffix}"] = [row[turn] for row in outcomes]
        answers = ["1" if row[turn] else str(10 + number) for number, row in enumerate(outcomes)]
        columns[f"text{suffix}"], columns[f"extracted{suffix}"] = answers, answers
        columns[f"reward{suffix}"] = [0.1 + row[turn] for row in outcomes]
        columns[f"tokens{suffix}"] = [3 + turn] * len(outcomes)
        columns[f"truncated{suffix}"] = [False] * len(outcomes)
    return pd.DataFrame(columns)


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (1, 30), (263, 500)])
def test_wilson_holds_the_shares_whose_test_does_not_reject(hits: int, count: int) -> None:
    share = hits / count

    def edge(inside: float, outside: float) -> float:
        for _ in range(80):
            middle = (inside + outside) / 2
            rejected = abs(share - middle) > Z * (middle * (1 - middle) / count) ** 0.5
            inside, outside = (inside, middle) if rejected else (middle, outside)
        return inside

    assert wilson(share, count) == pytest.approx((edge(share, 0.0), edge(share, 1.0)), abs=1e-9)


def test_paired_interval_is_that_of_the_bootstrap() -> None:
    gains = np.repeat([1, -1, 0], [60, 20, 320])
    means = np.random.default_rng(0).choice(gains, (20_000, len(gains))).mean(1)
    low, high = paired(60 / 400, 20 / 400, 400)
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.003)


def test_paired_interval_covers_the_truth() -> None:
    """Also where changes are rare, and Wald's would have no width; shares and counts as evaluations have."""
    random = np.random.default_rng(1)
    cases = [(0.002, 0.002, 500), (0.3, 0.02, 50), (0.1, 0.05, 164), (0.4, 0.01, 2000)]
    for improved, worsened, count in cases:
        outcomes = random.multinomial(count, [improved, worsened, 1 - improved - worsened], 4000) / count
        bounds = [paired(gain, loss, count) for gain, loss, _ in outcomes]
        covered = np.mean([low <= improved - worsened <= high for low, high in bounds])
        assert covered >= 0.94
    low, high = paired(0.0, 0.0, 100)
    assert low == -high < 0
    assert paired(1.0, 0.0, 3)[1] == 1.0


def test_transitions_are_shares_of_all_problems() -> None:
    outcomes = [(True, True)] * 4 + [(False, True)] * 3 + [(True, False)] * 1 + [(False, False)] * 2
    metrics = summarise(table(outcomes))
    assert metrics["n"] == 10
    assert (metrics["accuracy_t1"], metrics["accuracy_t2"]) == (0.5, 0.7)
    assert (metrics["delta_i_to_c"], metrics["delta_c_to_i"]) == (0.3, 0.1)
    assert metrics["delta"] == pytest.approx(0.2)
    assert metrics["changed_t2"] == 0.4
    assert metrics["reward_t2"] == pytest.approx(0.8), "the reward is another thing than the accuracy"
    for key, (low, high) in metrics["ci95"].items():
        assert low < metrics[key] < high, key


def test_later_attempts_are_compared_with_the_one_before() -> None:
    metrics = summarise(table([(False, True, True), (False, False, True), (True, True, False)]))
    assert metrics["delta"] == pytest.approx(1 / 3)
    assert metrics["delta_t3"] == pytest.approx(0)
    assert (metrics["delta_i_to_c_t3"], metrics["delta_c_to_i_t3"]) == (1 / 3, 1 / 3)
    assert metrics["length_t3"] == 5


def test_two_unparsable_answers_are_no_change() -> None:
    frame = table([(False, False), (False, True)])
    for column in ("extracted_t1", "extracted_t2"):
        frame[column] = frame[column].astype("object")
    frame.loc[0, ["extracted_t1", "extracted_t2"]] = None
    frame.loc[1, "extracted_t1"] = None
    metrics = summarise(frame)
    assert metrics["changed_t2"] == 0.5
    assert (metrics["unparsable_t1"], metrics["unparsable_t2"]) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [("abc", "abc", 0), ("", "", 0), ("abc", "", 1), ("kitten", "sitting", 3 / 13), ("12", "21", 2 / 4)],
)
def test_edit_ratio(first: str, second: str, ratio: float) -> None:
    assert edit_ratio(first, second) == pytest.approx(ratio)


def sampled(rng: np.random.Generator, problems: int, samples: int, spread: float) -> pd.DataFrame:
    """Problems whose chances to be right are far apart (a small `spread`) or nearly the same."""
    chances = rng.beta(spread, spread, problems)
    rows = [tuple(rng.random(2) < chance) for chance in chances for _ in range(samples)]
    made = table(rows)
    made["id"] = [f"p{number}" for number in range(problems) for _ in range(samples)]
    return made


@pytest.mark.parametrize("spread", [0.2, 1.0, 50.0])
def test_intervals_of_several_samples_are_those_of_resampled_problems(spread: float) -> None:
    rng = np.random.default_rng(0)
    generations = sampled(rng, 400, 8, spread)
    metrics = summarise(generations)
    assert (metrics["n"], metrics["samples"]) == (400, 8)
    after_before = generations["correct_t2"].astype(int) - generations["correct_t1"]
    for key, values in (("accuracy_t1", generations["correct_t1"]), ("delta", after_before)):
        means = values.groupby(generations["id"]).mean().to_numpy()
        assert metrics[key] == pytest.approx(means.mean())
        drawn = rng.choice(means, (4000, len(means))).mean(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        found_low, found_high = metrics["ci95"][key]
        assert found_high - found_low == pytest.approx(high - low, rel=0.08), key


def test_independent_draws_lie_between_problems_and_rows() -> None:
    ids = pd.Series([name for name in "abcd" for _ in range(3)])
    alike = pd.Series([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0])
    assert effective_count(alike, ids) == 4  # a second look at a problem tells nothing
    assert effective_count(pd.Series([1, 0, 0] * 4), ids) == 12  # problems do not differ
    assert effective_count(pd.Series([1] * 12), ids) == 4
    assert effective_count(alike, pd.Series(range(12))) == 12


def test_accuracies_by_label_are_those_of_its_rows() -> None:
    generations = table([(True, True), (False, True), (False, False)])
    generations["by_level"] = ["1", "1", "2"]
    metrics = summarise(generations)
    assert metrics["by"] == {
        "level": {
            "1": {"n": 2, "accuracy_t1": 0.5, "accuracy_t2": 1.0},
            "2": {"n": 1, "accuracy_t1": 0.0, "accuracy_t2": 0.0},
        }
    }


def test_verdicts_and_revisions_are_counted() -> None:
    made = table([(True, True), (False, True), (False, False), (True, False)])
    assert not [key for key in summarise(made) if "_v1" in key or "revised" in key]
    made["correct_v1"] = [True, True, False, False]
    made["extracted_v1"] = ["right", "wrong", None, "wrong"]
    made["tokens_v1"], made["truncated_v1"] = [1, 2, 5, 2], [False, False, True, False]
    made["tokens_t2"] = [0, 4, 0, 4]
    metrics = summarise(made)
    assert metrics["attempts"] == 2
    assert (metrics["accuracy_v1"], metrics["ci95"]["accuracy_v1"]) == (0.5, list(wilson(0.5, 4)))
    assert (metrics["unparsable_v1"], metrics["truncated_v1"], metrics["length_v1"]) == (0.25, 0.25, 2.5)
    assert (metrics["revised_t2"], metrics["length_t2"]) == (0.5, 2.0)
