"""A sample of what `make fuzz` tries: inputs are accepted, or refused in one line that changes no output."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from score_core.errors import UserError
from tests import fuzz, fuzz_trial
from tests.fuzz import KINDS
from tests.fuzz_trial import outcome, outcomes
from tests.fuzz_workplace import lay_out

INPUTS = 200


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkout in which every stage has run."""
    root = tmp_path_factory.mktemp("workplace")
    lay_out(root)
    return root


@pytest.mark.parametrize(("kind", "share"), KINDS.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_inputs_are_accepted_or_refused_in_one_line(kind: Callable, share: int, workplace: Path) -> None:
    found = outcomes(kind, INPUTS * share // 100, workplace)
    assert len(found) == INPUTS * share // 100
    wrong = [f"{came}: {said}" for came, said in found if came not in ("accepted", "refused")]
    assert not wrong, wrong[0]


def test_the_same_inputs_are_tried_each_time(workplace: Path) -> None:
    kind = fuzz.bytes_of_settings
    assert outcomes(kind, 5, workplace) == outcomes(kind, 5, workplace)


def test_what_must_not_be_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UserError("no")

    def spoil() -> None:
        Path("out/before").write_text("something else")
        refuse()

    def leave_something() -> None:
        Path(".out.tmp").touch()
        refuse()

    monkeypatch.setattr(fuzz_trial, "PATIENCE", 1)
    came = {
        refuse: "refused",
        lambda: None: "accepted",
        lambda: 1 / 0: "traceback",
        lambda: time.sleep(30): "hang",
        spoil: "output changed",
        leave_something: "output changed",
    }
    for number, (work, expected) in enumerate(came.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with contextlib.chdir(folder):
            assert outcome(work)[0] == expected
