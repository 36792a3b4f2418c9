"""The pool: what is a verdict, what is lost, what is asked again, and where it refuses to work."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from score_core.answers.sandbox import pool as pools
from score_core.answers.sandbox.pool import Job, Pool, Sandbox
from tests.configs import ROOT
from tests.hostile import RIGHT
from tests.sandbox import needs_sandbox

SECONDS = 2.0
JOB = Job(RIGHT, "", ("f",), "", ("assert f(1) == 2", "assert f(2) == 4", "assert f(3) == 4"))
SLOW = JOB._replace(program="import time\ntime.sleep(1)\n" + RIGHT)


@needs_sandbox
def test_each_test_counts_by_itself_and_in_order() -> None:
    assert Pool(SECONDS).judge_all([JOB, JOB._replace(tests=JOB.tests[:1])]) == [(True, False, True), (True,)]


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "test"),
    [
        (
            "class P:\n    def __init__(self, x): self.x = x\ndef f(p, q): return p.x + q.x",
            "f(P(1), P(2)) == 3",
        ),
        ("class P:\n    def __init__(self, x): self.x = x\ndef f(p, q): return p", "f(P(1), P(2)).x == 1"),
        ("def f(*a, **k): return [a, k]\nclass P: pass", "f(1, b=(2,)) == [(1,), {'b': (2,)}]"),
        ("def f(n): return (k for k in range(n))\nclass P: pass", "list(f(3)) == [0, 1, 2]"),
        ("def f(n): return lambda k: n + k\nclass P: pass", "f(3)(4) == 7"),
        ("class P(list): pass\ndef f(): return P", "len(f()([1, 2])) == 2"),
    ],
)
def test_tests_may_use_objects_of_the_program(program: str, test: str) -> None:
    job = Job(program, "", ("P", "f"), "", (f"assert {test}",))
    assert Pool(SECONDS).judge_all([job]) == [(True,)]


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "test", "passes"),
    [
        ("def f(x): return {}[x]", "try: f(1)\nexcept KeyError: pass\nelse: assert False", True),
        ("def f(x): return x", "try: f(1)\nexcept KeyError: pass\nelse: assert False", False),
        ("class E(Exception): pass\ndef f(x): raise E", "f(1)", False),
        ("def f(x): raise SystemExit", "f(1)", False),
        ("def g(x): return x", "assert True", False),  # what tests need is not there
        ("def f(x: return x", "assert True", False),
        ("def f(x): return x\n1 / 0", "assert True", False),  # it did not run to its end
        ("", "assert True", False),
    ],
)
def test_exceptions_are_those_of_the_program(program: str, test: str, passes: bool) -> None:
    assert Pool(SECONDS).judge_all([Job(program, "", ("f",), "", (test,))]) == [(passes,)]


@needs_sandbox
def test_what_uses_up_the_time_fails_what_is_left() -> None:
    program = "def f(x):\n    while x == 2: pass\n    return x + 1"
    (verdict,) = Pool(1.0).judge_all([JOB._replace(program=program)])
    assert verdict == (True, False, False)


@needs_sandbox
def test_a_head_runs_before_program_and_tests() -> None:
    head = "import math\ndef helper(x): return x * 10\ndef f(x):\n    '''to write'''\n"
    job = Job("def f(x): return helper(math.floor(x))", head, ("f",), head, ("assert f(1.5) == helper(1)",))
    assert Pool(SECONDS).judge_all([job]) == [(True,)]


@needs_sandbox
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sandbox_that_is_lost_costs_no_verdict(
    monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setattr(pools, "SPARE_SECONDS", 0.5)
    pool = Pool(1.0)
    pool.judge_all([JOB])
    (sandbox,) = pool._idle
    timer = threading.Timer(0.5, os.killpg, (sandbox._process.pid, how))
    timer.start()
    # The one that stands still is given up after its time, and a fresh one gives the verdict.
    assert pool.judge_all([SLOW]) == [(True, False, True)]
    timer.join()
    assert pool._idle != [sandbox] and sandbox._process.returncode is not None


@needs_sandbox
def test_a_sandbox_that_is_lost_twice_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self: Sandbox, job: Job, seconds: float) -> tuple[bool, ...]:
        raise pools.Lost("as if")

    monkeypatch.setattr(Sandbox, "judge", judge)
    assert Pool(SECONDS).judge_all([JOB, JOB]) == [None, None]


@needs_sandbox
def test_a_program_killed_from_outside_is_judged_again() -> None:
    pool = Pool(SECONDS)
    pool.judge_all([JOB])
    root, killed = pool._idle[0]._process.pid, []

    def kill() -> None:
        time.sleep(0.5)
        killed.append(youngest_below(root))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert pool.judge_all([SLOW]) == [(True, False, True)]
    thread.join()
    # Launcher, server, judge, program: the last one was hit, and its sandbox is given up.
    assert killed and pool._idle[0]._process.pid != root


def youngest_below(process: int) -> int:
    """The last of a process's children, that one's last, and so on."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
    pairs = [(int(text.split()[0]), int(text.rpartition(")")[2].split()[1])) for text in stats]
    below = [child for child, parent in pairs if parent == process]
    return youngest_below(max(below)) if below else process


@needs_sandbox
def test_a_fork_has_sandboxes_of_its_own() -> None:
    pool = Pool(SECONDS)
    pool.judge_all([JOB])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if pool.judge_all([JOB]) == [(True, False, True)] else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.judge_all([JOB]) == [(True, False, True)]


FORBIDDEN = "echo 0 > /proc/sys/user/max_user_namespaces; exec "


def where_namespaces_are_forbidden(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a user namespace in which no other can be made, if it can be had."""
    shell = ["unshare", "-Ur", "sh", "-c", FORBIDDEN + '"$@"', "sh", *command]
    tried = subprocess.run([*shell[:4], FORBIDDEN + "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"namespaces cannot be forbidden for a test here: {tried.stderr.strip()}")
    return subprocess.run(shell, capture_output=True, text=True, cwd=ROOT)


@needs_sandbox
def test_without_a_sandbox_the_stage_refuses(tmp_path: Path) -> None:
    stage = [sys.executable, "-m", "tasks.download_data", str(tmp_path / "out")]
    settings = ["--set", "reward.matcher=code_tests", "--set", "reward.extractor=code_block"]
    refused = where_namespaces_are_forbidden(*stage, *settings)
    assert refused.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert "this machine has no sandbox" in line and line.endswith("set reward.sandbox: none.")


@needs_sandbox
def test_without_a_sandbox_the_risk_may_be_accepted() -> None:
    code = (
        f"from score_core.answers.sandbox.pool import Job, Pool; print(Pool(2.0, False).judge_all([{JOB!r}]))"
    )
    accepted = where_namespaces_are_forbidden(sys.executable, "-c", code)
    assert accepted.stdout.strip() == "[(True, False, True)]", accepted.stderr
