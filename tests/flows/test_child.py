"""A child process: streamed while it runs, stopped gently, never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.child import run

ROOT = Path(__file__).resolve().parents[2]
# Says its number, then works until it is interrupted, and then says what it saved.
WORKER = """
import os, time
try:
    print("process", os.getpid())
    time.sleep(60)
except KeyboardInterrupt:
    print("saved")
    raise SystemExit(130)
"""
# Like DVC: waits for a child of its own and ignores Ctrl-C meanwhile.
PARENT = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-u", "-c", {WORKER!r}])
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(child.wait())
"""


class StopError(BaseException):
    """What Prefect raises in the main thread on SIGTERM is no Exception either."""


def python(code):
    return [sys.executable, "-c", code]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def stopped_by_sigterm():
    def stop(number, frame):
        raise StopError

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def test_lines_arrive_while_the_child_runs(tmp_path):
    seen = []
    code = "import time\nfor n in range(3):\n    print(n)\n    time.sleep(0.5)"
    ended = run(python(code), lambda line: seen.append((line, time.monotonic())), os.environ, tmp_path)
    assert [line for line, _ in seen] == ended.tail == ["0", "1", "2"]
    assert seen[2][1] - seen[0][1] > 0.6


def test_the_exit_code_and_both_streams_are_told(tmp_path):
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    ended = run(python(code), lambda line: None, os.environ, tmp_path)
    assert (ended.code, ended.tail) == (3, ["out", "err"])


def test_secrets_reach_the_child_but_not_the_log(tmp_path):
    seen = []
    code = "import os; print('token', os.environ['HF_TOKEN'], len(os.environ['HF_TOKEN']))"
    run(python(code), seen.append, {**os.environ, "HF_TOKEN": "hf_secret"}, tmp_path)
    assert seen == ["token ******** 9"]


def test_a_stop_interrupts_the_group_once_and_what_it_still_says_is_heard(tmp_path, stopped_by_sigterm):
    seen = []

    def emit(line):
        seen.append(line)
        if line.startswith("process"):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with pytest.raises(StopError):
        run(python(PARENT), emit, os.environ, tmp_path)
    assert seen[1:] == ["saved"]
    assert wait_until(lambda: not alive(int(seen[0].split()[1])))


def test_who_does_not_stop_is_killed_after_the_grace(tmp_path, stopped_by_sigterm):
    seen = []

    def emit(line):
        seen.append(line)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    code = "import os, signal, time; signal.signal(2, signal.SIG_IGN); print(os.getpid()); time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(StopError):
        run(python(code), emit, os.environ, tmp_path, grace=1.0)
    assert time.monotonic() - started < 10
    assert wait_until(lambda: not alive(int(seen[0])))


def test_what_a_killed_child_leaves_behind_can_save_and_is_ended(tmp_path):
    """SIGKILL for DVC, with a stage that has not heard of it."""
    seen = []

    def emit(line):
        seen.append(line)
        if line.startswith("process"):
            parent = Path(f"/proc/{line.split()[1]}/stat").read_text().rpartition(")")[2].split()[1]
            os.kill(int(parent), signal.SIGKILL)

    ended = run(python(PARENT), emit, os.environ, tmp_path)
    assert ended.code == -signal.SIGKILL
    assert seen[1:] == ["saved"]
    assert wait_until(lambda: not alive(int(seen[0].split()[1])))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_child_dies_with_a_killed_parent(tmp_path):
    # As DVC runs a stage, where the shell stays between the two.
    inner = "import os, time; print(os.getpid()); time.sleep(60)"
    code = f"import os, sys; sys.exit(os.system({f'{sys.executable} -u -c {inner!r}; true'!r}))"
    flow = (
        "import os, pathlib, sys; from flows.child import run; "
        f"run([sys.executable, '-c', {code!r}], lambda line: print(line, flush=True), os.environ, "
        f"pathlib.Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen(python(flow), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not alive(child), 5)


def test_a_child_started_by_a_background_job_hears_ctrl_c(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        seen = []
        code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        run(python(code), seen.append, os.environ, tmp_path)
        assert seen == ["True"]
    finally:
        signal.signal(signal.SIGINT, before)
