"""A command whose output is logged; how it ends is tests/tasks/runner/test_processes.py's."""

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.child import Stopped, run, stopping_together


class StopError(BaseException):
    """What Prefect raises in the main thread on SIGTERM is no Exception either."""


def python(code):
    return [sys.executable, "-c", code]


@pytest.fixture
def stopped_by_sigterm():
    def stop(number, frame):
        raise StopError

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def test_lines_arrive_while_the_child_runs(tmp_path):
    seen = []

    def emit(line):
        seen.append(line)
        (tmp_path / line).touch()

    code = (
        "import pathlib, time\nfor n in range(3):\n    print(n)\n"
        "    while not pathlib.Path(str(n)).exists(): time.sleep(0.01)"
    )
    ended = run(python(code), emit, os.environ, tmp_path)
    assert seen == ended.tail == ["0", "1", "2"]


def test_the_exit_code_and_both_streams_are_told(tmp_path):
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    ended = run(python(code), lambda line: None, os.environ, tmp_path)
    assert (ended.code, ended.tail) == (3, ["out", "err"])


def test_secrets_reach_the_child_but_not_the_log(tmp_path):
    seen = []
    code = "import os; print('token', os.environ['HF_TOKEN'], len(os.environ['HF_TOKEN']))"
    run(python(code), seen.append, {**os.environ, "HF_TOKEN": "hf_secret"}, tmp_path)
    assert seen == ["token ******** 9"]


def test_a_stop_interrupts_the_child_and_what_it_still_says_is_heard(tmp_path, stopped_by_sigterm):
    seen = []

    def emit(line):
        seen.append(line)
        if line == "works":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    code = (
        "import time\ntry:\n    print('works')\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('saved')"
    )
    with pytest.raises(StopError):
        run(python(code), emit, os.environ, tmp_path)
    assert seen == ["works", "saved"]


def test_a_stop_reaches_the_children_of_all_threads(tmp_path):
    code = (
        "import time\ntry:\n    print('up', flush=True)\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('saved')"
    )
    seen = []
    up = threading.Semaphore(0)

    def emit(line):
        seen.append(line)
        up.release()

    def start():
        return run(python(code), emit, os.environ, tmp_path)

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(StopError), stopping_together():
            running = [pool.submit(start) for _ in range(2)]
            for _ in running:
                up.acquire()
            raise StopError
        late = pool.submit(start)
    assert [type(one.exception()) for one in (*running, late)] == [Stopped] * 3
    assert seen == ["up", "up", "saved", "saved"]
    with stopping_together():
        assert run(python("print('again')"), emit, os.environ, tmp_path).code == 0
