"""The grading table: a few hundred gold answers and answers, each with the verdict that people expect."""

import csv
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from score_core.answers.verifier import Verifier
from tests.configs import reward

PROMISED_SECONDS = 5.0  # for any pair
WATCHDOG_SECONDS = 10 * PROMISED_SECONDS


def written_out(cell: str) -> str:
    """The table's `[[ab * 3]]` stands for `ababab`."""
    return re.sub(r"\[\[(.+?) \* ([0-9]+)\]\]", lambda m: m[1] * int(m[2]), cell, flags=re.DOTALL)


TABLE = Path(__file__).with_name("verdicts.csv")
with TABLE.open(newline="") as file:
    ROWS = [{key: written_out(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def verdicts() -> list[str]:
    """What is found for each row: yes, no or quarantined; graded in batches, as training does."""
    batches = defaultdict(list)
    for number, row in enumerate(ROWS):
        batches[row["extractor"], row["matcher"]].append(number)
    found = [""] * len(ROWS)
    for (extractor, matcher), numbers in batches.items():
        verifier = Verifier(reward(extractor=extractor, matcher=matcher))
        golds = verifier.golds([(ROWS[number]["gold"],) for number in numbers])
        graded = verifier.verify_all(
            [ROWS[number]["answer"] for number in numbers], [gold.references for gold in golds]
        )
        for number, gold, verdict in zip(numbers, golds, graded, strict=True):
            found[number] = "quarantined" if not gold.references else "yes" if verdict.correct else "no"
    return found


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_the_verdict_is_the_expected_one(number: int, verdicts: list[str]) -> None:
    row = ROWS[number]
    assert verdicts[number] == row["expected"], (row["gold"][:80], row["answer"][:80])


def test_the_table_is_large_and_of_all_kinds() -> None:
    assert len(ROWS) >= 250
    assert len({tuple(row.values()) for row in ROWS}) == len(ROWS)
    assert Counter(row["expected"] for row in ROWS).keys() == {"yes", "no", "quarantined"}
    assert {"right", "wrong", "algebra", "malformed", "hostile"} <= {row["kind"] for row in ROWS}


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["kind"] == "hostile" or len(row["answer"]) > 9000]
)
def test_no_pair_takes_long(row: dict[str, str]) -> None:
    verifier = Verifier(reward(extractor=row["extractor"], matcher=row["matcher"]))
    verifier.verify_all(["x+1"], [("1+x",)])  # its helper has started
    start = time.monotonic()
    verifier.verify_all([row["answer"]], [(row["gold"],)])
    assert time.monotonic() - start < WATCHDOG_SECONDS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1000", "1,000"),
        ("3", "3.0"),
        (r"\frac12", "0.5"),
        ("x^2+1", "1+x^2"),
        ("(C)", r"\text{(C)}"),
        ("t+1", r"\boxed{t+1}"),
        ("$18", "18"),
    ],
)
def test_what_other_systems_graded_wrong_is_in_the_table(one, other):
    rows = [row for row in ROWS if row["matcher"] == "math_acc" and row["expected"] == "yes"]
    assert [row for row in rows if {row["gold"], row["answer"]} == {one, other}]
