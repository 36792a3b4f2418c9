"""Cells of the matrix: one that fails stops what needs it, and nothing else."""

import threading
from pathlib import Path

import pytest
from prefect.states import Completed

from flows import compare
from flows.dag import Stage, Step
from flows.stages import Outcome
from score_core.errors import UserError

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

    def reproduce(
        stage: Stage, force: bool, retries: int, root: Path, share: dict[str, str]
    ) -> tuple[Outcome, object]:
        assert (force, retries, root, share) == (False, 3, compare.MATRIX, {})
        ran.append(stage.name)
        return Outcome(stage.name, "Failed" if stage.name == failing else "Completed"), Completed()

    def plan(stages: list[Stage], root: Path) -> list[Step]:
        assert ran == ["code", "settings"], "asked before it is known what has changed"
        stale = {"train@1", "evaluate@1", "page"}
        return [Step(one.name, "stale" if one.name in stale else "cached", "") for one in stages]

    monkeypatch.setattr(compare, "reproduce_stage", reproduce)
    monkeypatch.setattr(compare, "plan", plan)
    cells = [Stage(name, "", frozenset(needs), ()) for name, needs in CELLS.items()]
    found = {one.stage: one.state for one in compare.run_cells(cells, 3, [{}])}
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


@pytest.mark.parametrize("jobs", [2, 3])
def test_cells_that_do_not_need_each_other_run_side_by_side(
    monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    """Each with GPUs of its own, and never two seeds of one method, whose running state is in one folder."""
    needs = {"data": (), "train@1-a": ("data",), "train@2-a": ("data",), "train@1-b": ("data",)}
    together = threading.Barrier(2)  # breaks unless two are inside at once
    inside: dict[str, str] = {}
    ran = []

    def reproduce(
        stage: Stage, force: bool, retries: int, root: Path, share: dict[str, str]
    ) -> tuple[Outcome, object]:
        inside[stage.name] = share["CUDA_VISIBLE_DEVICES"]
        assert len(set(inside.values())) == len(inside), "two cells share a GPU"
        if stage.name != "data":
            ran.append(stage.name)
            assert {"train@1-a", "train@2-a"} - inside.keys()
            if len(ran) <= 2:
                together.wait(60)
        del inside[stage.name]
        return Outcome(stage.name, "Completed"), Completed()

    monkeypatch.setattr(compare, "reproduce_stage", reproduce)
    monkeypatch.setattr(compare, "plan", lambda stages, root: [])
    monkeypatch.setattr(compare, "accelerators", lambda: ["GPU-a", "GPU-b", "GPU-c"])
    cells = [Stage(name, "", frozenset(found), ()) for name, found in needs.items()]
    outcomes = compare.run_cells(cells, 0, compare.shares(jobs))
    assert [one.stage for one in outcomes] == list(needs)
    assert ran[:2] in (["train@1-a", "train@1-b"], ["train@1-b", "train@1-a"]) and ran[2:] == ["train@2-a"]


def test_accelerators_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "accelerators", lambda: ["GPU-a", "GPU-b", "GPU-c"])
    found = [share["CUDA_VISIBLE_DEVICES"] for share in compare.shares(2)]
    assert found == ["GPU-a,GPU-c", "GPU-b"]
    assert compare.shares(1) == [{}], "one job takes what the stages take by themselves"
    with pytest.raises(UserError, match="jobs: 4, and 3 GPUs are visible"):
        compare.shares(4)
    with pytest.raises(UserError, match="jobs: expected 1 or more, found 0"):
        compare.shares(0)
    monkeypatch.setattr(compare, "accelerators", list)
    assert compare.shares(4) == [{}] * 4
