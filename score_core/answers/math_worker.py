"""The process that compares mathematics; started by `score_core/answers/math_equality.py`.

One comparison a line on standard input, as JSON `[gold, answer, seconds]`; one word a line on standard
output: `1`, `0`, `slow` or `lost`.

It loads the algebra once, and has a forked child compare. A comparison that takes too long ends the child:
the interval timer's signal keeps its default action, by which the kernel kills even code that never returns
to Python's interpreter (a power tower of integers), and does so when the parents are gone as well. The timer
counts CPU time, so that a busy machine grades as an idle one does. The next child is forked in milliseconds.
"""

import importlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable

MEMORY_BYTES = 2 << 30


def main() -> None:
    """Answers comparisons until standard input closes."""
    compared = importlib.import_module(sys.argv[1])
    # The parser's runtime may print to standard output; the answers get a channel of their own.
    answers = os.dup(1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    for gold, answer in compared.WARM:
        compared.equal(gold, answer)
    os.write(answers, b"ready\n")
    while True:
        child = os.fork()
        if child == 0:
            _compare(answers, compared.equal)
            os._exit(0)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        elif os.WIFEXITED(status):
            return  # standard input is closed, or nobody reads the answers
        slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
        os.write(answers, b"slow\n" if slow else b"lost\n")


def _compare(answers: int, equal: Callable[[str, str], bool]) -> None:
    for line in sys.stdin:
        gold, answer, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        verdict = equal(gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(answers, b"1\n" if verdict else b"0\n")


if __name__ == "__main__":
    main()
