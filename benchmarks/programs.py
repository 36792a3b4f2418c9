"""What judging programs costs: programs a second, of right ones and with some that never end.

    .venv/bin/python -m benchmarks.programs             # a minute on 2 cores
    .venv/bin/python -m benchmarks.programs --count 512

Each program has the three tests of an MBPP problem. One that never ends takes `reward.seconds` of a core.
Prints a markdown table, and the kind of sandbox.
"""

import os
import sys
import time

from benchmarks.tables import markdown
from score_core.answers.sandbox.pool import Job, Pool, mechanism
from tasks.runner.exits import parser_of

RIGHT = "def f(x):\n    return x + 1\n"
ENDLESS = "def f(x):\n    while True: pass\n"
TESTS = ("assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0")
SECONDS = 3.0  # those of conf/profile/paper_code.yaml


def measured(endless: int, count: int) -> tuple[float, float]:
    """Seconds for `count` programs, `endless` of which never end, and for starting the sandboxes."""
    programs = [ENDLESS] * endless + [RIGHT] * (count - endless)
    pool = Pool(SECONDS)
    jobs = [Job(program, "", ("f",), "", TESTS) for program in programs]
    started = time.perf_counter()
    pool.judge_all(jobs[-2 * len(os.sched_getaffinity(0)) :])
    ready = time.perf_counter()
    verdicts = pool.judge_all(jobs)
    assert [verdict is not None and all(verdict) for verdict in verdicts] == [p == RIGHT for p in programs]
    return time.perf_counter() - ready, ready - started


def main() -> int:
    """The command line; returns the exit code."""
    parser = parser_of("benchmarks.programs", __doc__)
    parser.add_argument("--count", type=int, default=512, help="programs, as of one step of training (512)")
    given = parser.parse_args()
    rows = []
    for endless in (0, given.count // 100, given.count // 20):
        took, start = measured(endless, given.count)
        rows.append((given.count, endless, f"{took:.1f}", f"{given.count / took:.0f}", f"{start:.2f}"))
    print(f"{mechanism().name}, {len(os.sched_getaffinity(0))} cores")
    print(markdown(("programs", "endless", "seconds", "a second", "start, seconds"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
