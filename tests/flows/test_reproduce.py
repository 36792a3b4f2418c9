"""What the flow shows of a run of some stages only."""

import logging
from contextlib import nullcontext

import pytest
from prefect.states import Completed

from flows import reproduce as module
from flows import results
from flows.stages import Outcome


@pytest.mark.parametrize(("stages", "compared"), [(["evaluate_final"], False), (None, True)])
def test_only_a_base_that_this_run_has_brought_up_to_date_stands_beside_it(monkeypatch, stages, compared):
    """That of another profile may lie there still: evaluating the last model does not need it."""
    shown = []
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(module, "exclusive", lambda *_, **__: nullcontext())
    monkeypatch.setattr(module, "plan", lambda *_: [])
    monkeypatch.setattr(module, "as_text", lambda _: "")
    cached = Completed(name="Cached")
    monkeypatch.setattr(module, "reproduce_stage", lambda stage, *_: (Outcome(stage.name, "Cached"), cached))
    for name in ("show_stages", "show_warnings", "show_report"):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(module, "show_metrics", lambda *given: shown.append(given))
    monkeypatch.setattr(results, "save_last", lambda *_: None)
    monkeypatch.setattr(results, "read_metrics", _made)
    assert module.reproduce.fn(stages=stages).is_completed()
    ((_, final, base, _),) = shown
    assert final is not None and (base is not None) is compared


def _made(file, stages):
    """Metrics as good as any accepted ones, where one of `stages` makes the file."""
    good = {"n": 1, "accuracy_t2": 1.0, "delta": 1.0}
    return good if any(path.name == file for stage in stages for path in stage.outputs) else None
