"""Which samples are shown, and what is marked in them."""

import pandas as pd
import pytest

from score_core.report.samples import changes, choose_samples
from score_core.report.visible import visible
from tests.run_files import MODELS, make_rows


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("123456", "123956"), ("a b", "a  c\n"), ("x" * 60, "one two " * 20), ("same", "same")],
)
def test_pieces_join_to_the_text(before, after):
    assert "".join(piece for piece, _ in changes(before, after)) == after


def test_only_what_differs_is_marked():
    assert changes("004284", "064284") == [("0", False), ("6", True), ("4284", False)]
    long = "We add the tens and then the units, so the answer is 41. "
    marked = [piece for piece, changed in changes(long, long.replace("41", "42")) if changed]
    assert marked == ["42"]


def test_choice_depends_on_ids_alone():
    frame = pd.DataFrame(make_rows("final", MODELS["final"], 200, 2))
    chosen = choose_samples(frame, 2, 4)
    assert chosen == choose_samples(frame.sample(frac=1, random_state=3), 2, 4)
    assert [len(kind.samples) for kind in chosen][:1] == [4]
    assert sum(kind.total for kind in chosen) == 200
    corrected = chosen[0].samples[0]
    assert [attempt.correct for attempt in corrected.attempts] == [False, True]


def test_controls_become_visible():
    assert visible("a\x1b[31m\x00b\n\tc\x7f") == "a␛[31m␀b\n\tc␡"
