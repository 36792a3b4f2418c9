"""Helper processes that are killed, stopped or slow, and what becomes of the verdicts."""

import contextlib
import os
import signal
import threading
import time

import psutil
import pytest

from score_core.answers.matchers import MathMatcher
from score_core.answers.math_equality import MathEquality
from score_core.answers.remembered import Remembered
from score_core.answers.verifier import Verifier
from score_core.errors import UserError
from tests.configs import reward

BOMBS = [("x^3-7", f"9^{{9^{{9^{{{number}}}}}}}") for number in range(2, 6)]
SECONDS = 5.0  # what is promised for a pair; watchdogs wait for ten times that


def helpers() -> list[psutil.Process]:
    """The helper processes of this one and their children."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if "score_core.answers.math_worker" in process.cmdline():
                found.append(process)
    return found


def verdicts(equality: MathEquality, pairs: list[tuple[str, str]]) -> list[bool | None]:
    found = dict(equality.verdicts(pairs))
    return [found[pair] for pair in pairs]


def test_a_killed_helper_is_replaced_and_nothing_is_lost() -> None:
    equality = MathEquality(SECONDS)
    assert verdicts(equality, [("x+1", "1+x")]) == [True]
    for process in helpers():
        process.kill()
    assert verdicts(equality, [("x+2", "2+x"), ("x+2", "x")]) == [True, False]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
@pytest.mark.parametrize("which", ["children", "parents", "all"])
def test_no_signal_makes_a_right_answer_wrong(number: int, which: str) -> None:
    equality = MathEquality(SECONDS)
    assert verdicts(equality, [("x+1", "1+x")]) == [True]
    mine = helpers()
    parents = [process for process in mine if process.ppid() == os.getpid()]
    chosen = {"children": [p for p in mine if p not in parents], "parents": parents, "all": mine}[which]
    assert chosen
    for process in chosen:
        process.send_signal(number)
    start = time.monotonic()
    assert verdicts(equality, [("x+2", "2+x"), ("x+2", "x")]) == [True, False]
    assert time.monotonic() - start < 10 * SECONDS


def _whenever_there_is_one(number: int, done: threading.Event) -> None:
    while not done.is_set():
        for process in helpers():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        time.sleep(0.01)


@pytest.fixture(params=[signal.SIGKILL, signal.SIGSTOP])
def no_helper_lives(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A thread ends, or stops, every helper until the event is set."""
    monkeypatch.setattr("score_core.answers.math_equality.START_SECONDS", 3.0)
    done = threading.Event()
    thread = threading.Thread(target=_whenever_there_is_one, args=(request.param, done))
    thread.start()
    yield done
    done.set()
    thread.join()


def test_a_verdict_that_a_loss_produced_is_not_kept(no_helper_lives: threading.Event) -> None:
    matcher = MathMatcher(reward())
    assert matcher.equal_all(["x+1"], ["1+x"]) == [False]
    no_helper_lives.set()
    time.sleep(0.5)
    assert matcher.equal_all(["x+1"], ["1+x"]) == [True]


def test_a_gold_answer_is_not_quarantined_for_a_loss(no_helper_lives: threading.Event) -> None:
    verifier = Verifier(reward(extractor="identity", matcher="math_acc"))
    with pytest.raises(UserError, match=r"ended or stopped twice at the gold answer 'x\+1'"):
        verifier.golds([("x+1",)])
    no_helper_lives.set()
    time.sleep(0.5)
    assert verifier.golds([("x+1",)])[0].references == ("x+1",)


def test_ordinary_verdicts_do_not_wait_for_bombs() -> None:
    ordinary = [(f"x+{number}", f"{number}+x") for number in range(40)]
    equality = MathEquality(1.0)
    found = list(equality.verdicts([*BOMBS, *ordinary]))
    assert {pair for pair, _ in found[: len(ordinary)]} == set(ordinary)
    assert dict(found) == {**dict.fromkeys(BOMBS, False), **dict.fromkeys(ordinary, True)}


def test_a_bomb_is_asked_once() -> None:
    matcher = MathMatcher(reward(seconds=1.0))
    golds, answers = zip(*BOMBS, strict=True)
    assert not any(matcher.equal_all(golds, answers))
    asked = []
    matcher._algebra.verdicts = lambda pairs: asked.extend(pairs) or iter(())  # type: ignore[method-assign]
    assert not any(matcher.equal_all(golds, answers))
    assert asked == []


def test_helpers_end_with_what_started_them() -> None:
    before = set(helpers())
    equality = MathEquality(SECONDS)
    verdicts(equality, [("x+1", "1+x"), ("x+2", "2+x")])
    mine = set(helpers()) - before
    assert mine
    del equality
    assert psutil.wait_procs(mine, timeout=30)[1] == []


def test_what_is_remembered_is_bounded() -> None:
    remembered = Remembered(max_characters=10_000)
    for number in range(1000):
        remembered.keep([((f"{number}", "1" * 1000), True)])
        assert len(remembered) < 10
    assert remembered.get(("999", "1" * 1000)) is True
    assert remembered.get(("1", "1" * 1000)) is None
    for _ in range(1000):
        remembered.keep([(("same", "pair"), False)])
    assert remembered.get(("same", "pair")) is False


def test_long_answers_leave_nothing_behind() -> None:
    verifier = Verifier(reward(extractor="identity", matcher="math_acc"))
    before = psutil.Process().memory_info().rss
    for number in range(200):
        verifier.verify_all([f"{number}" + "1+" * 500_000 + "1"], [("x+1",)])
    assert psutil.Process().memory_info().rss - before < 50e6
