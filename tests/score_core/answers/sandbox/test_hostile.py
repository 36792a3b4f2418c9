"""Hostile programs: each contained, each judged in time, and none a hindrance to the right ones."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from score_core.answers.sandbox import pool as pools
from score_core.answers.sandbox.pool import Job, Pool, mechanism
from tests.hostile import FAILING, PASSING
from tests.sandbox import needs_sandbox

pytestmark = needs_sandbox
SECONDS = 1.0
TESTS = ("assert f(1) == 2", "assert f(-5) == -4", "assert f(0) == 1")
WAS_HERE = (
    *(Path(folder, "was_here") for folder in ("/", "/tmp", "/usr/lib")),
    Path(os.__file__).with_name("was_here.py"),
)


def own_files() -> set[str]:
    """What stands in the user's home, but for the way to Python's own library, which may lie there."""
    home, library = Path.home(), Path(sys.base_prefix)
    own = {path.name for path in home.iterdir()}
    return own - ({library.relative_to(home).parts[0]} if library.is_relative_to(home) else set())


def job(program: str, port: int = 9) -> Job:
    for name, value in {"HOME": str(Path.home()), "CODE": __file__, "OWN_FILES": own_files()}.items():
        program = program.replace(name, repr(value))
    return Job(program.replace("PORT", str(port)), "", ("f",), "", TESTS)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    os.environ["SECRET_OF_TEST"] = "secret"
    yield Pool(SECONDS)
    del os.environ["SECRET_OF_TEST"]
    assert not [path for path in WAS_HERE if path.exists()]


def judged(pool: Pool, program: str, port: int = 9) -> tuple[bool, ...] | None:
    """The verdict; it must come at ten times the promised time at the latest."""
    started = time.monotonic()
    (verdict,) = pool.judge_all([job(program, port)])
    assert time.monotonic() - started < 10 * 2 * SECONDS
    return verdict


def test_there_are_enough_of_them() -> None:
    assert len(FAILING) >= 30


@pytest.mark.parametrize("name", FAILING)
def test_a_hostile_program_passes_no_test(pool: Pool, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        assert judged(pool, FAILING[name], server.getsockname()[1]) in ((False,) * 3, None)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    # The next one finds everything as it was.
    assert judged(pool, PASSING["right"]) == (True,) * 3


@pytest.mark.parametrize("name", PASSING)
def test_a_right_program_passes_however_odd(pool: Pool, name: str) -> None:
    assert judged(pool, PASSING[name]) == (True,) * 3


def test_right_ones_among_hostile_ones_wait_for_no_more_than_the_limits(pool: Pool) -> None:
    programs = [text for hostile in FAILING.values() for text in (hostile, PASSING["right"])]
    started = time.monotonic()
    verdicts = pool.judge_all([job(text) for text in programs])
    took = time.monotonic() - started
    assert set(verdicts[1::2]) == {(True,) * 3}
    assert not any(map(any, filter(None, verdicts[::2])))
    # All that use up their time do so twice where they are lost; ten times that at the latest.
    assert took < 10 * len(FAILING) * 2 * SECONDS / min(len(os.sched_getaffinity(0)), pools.MAX_PROCESSES)


def test_nothing_is_left_behind() -> None:
    own = Pool(SECONDS)
    programs = [FAILING[name] for name in ("leaves_a_process", "sleeps", "ignores_signals", "fork_bomb")]
    own.judge_all([job(text) for text in programs])
    started = {sandbox._process.pid for sandbox in own._idle}
    assert started and sessions() & started
    del own
    for _ in range(100):  # the kernel takes a moment to clear a PID namespace away
        if not sessions() & started:
            return
        time.sleep(0.1)
    raise AssertionError("sandboxes outlive their pool")


def sessions() -> set[int]:
    """The sessions that this machine's processes are in, but for those that have ended."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found |= {int(session)} - ({int(session)} if state == "Z" else set())
    return found


def test_the_sandbox_says_what_it_is_made_of() -> None:
    assert mechanism().name in ("bubblewrap", "namespaces")
