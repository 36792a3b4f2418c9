"""Cells of the matrix: one that fails stops what needs it, and nothing else."""

from pathlib import Path

import pytest
from prefect.states import Completed

from flows import compare
from flows.dag import Stage, Step
from flows.stages import Outcome

CELLS = {
    "data": ("code",),
    "base": ("data",),
    "train@1": ("base", "settings"),
    "train@2": ("base", "settings"),
    "evaluate@1": ("train@1",),
    "evaluate@2": ("train@2",),
    "code": (),
    "settings": (),
    "page": ("evaluate@1", "evaluate@2"),
}


@pytest.mark.parametrize("failing", [None, "train@1"])
def test_a_failed_cell_stops_what_needs_it(monkeypatch: pytest.MonkeyPatch, failing: str | None) -> None:
    ran: list[str] = []

    def reproduce(stage: Stage, force: bool, retries: int, root: Path) -> tuple[Outcome, object]:
        assert (force, retries, root) == (False, 3, compare.MATRIX)
        ran.append(stage.name)
        return Outcome(stage.name, "Failed" if stage.name == failing else "Completed"), Completed()

    def plan(stages: list[Stage], root: Path) -> list[Step]:
        assert ran == ["code", "settings"], "asked before it is known what has changed"
        stale = {"train@1", "evaluate@1", "page"}
        return [Step(one.name, "stale" if one.name in stale else "cached", "") for one in stages]

    monkeypatch.setattr(compare, "reproduce_stage", reproduce)
    monkeypatch.setattr(compare, "plan", plan)
    cells = [Stage(name, "", frozenset(needs), ()) for name, needs in CELLS.items()]
    found = {one.stage: one.state for one in compare.run_cells(cells, 3)}
    cached = dict.fromkeys(("data", "base", "train@2", "evaluate@2"), "Cached")
    if failing is None:
        assert ran == ["code", "settings", "train@1", "evaluate@1", "page"]
        assert found == cached | dict.fromkeys(ran, "Completed")
    else:
        assert ran == ["code", "settings", "train@1"]
        assert found == cached | {
            "code": "Completed",
            "settings": "Completed",
            "train@1": "Failed",
            "evaluate@1": "not reached",
            "page": "not reached",
        }
