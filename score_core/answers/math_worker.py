"""The process that compares mathematics with math-verify; started by `score_core/answers/math_equality.py`.

One comparison a line on standard input, as JSON `[gold, answer]`; `1` or `0` on standard output.
It is a script, not a module to import, so that it needs nothing of its parent.

A comparison that takes too long ends the process: the interval timer's signal keeps its default
action, by which the kernel kills even code that never returns to Python's interpreter (a power
tower of integers) and does so when the parent is gone as well. The timer counts CPU time, so that
a busy machine grades as an idle one does.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MEMORY_BYTES = 2 << 30


def main(seconds: float) -> None:
    """Answers comparisons until standard input closes."""
    # The parser's runtime may print to standard output; the answers get a channel of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    equal(r"\frac{1}{2}+x^2", r"\sqrt{2}+x")  # the parser builds its tables at its first use
    for line in sys.stdin:
        gold, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        verdict = equal(gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(verdict), file=answers)


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify parses both and finds them equal; their texts alone are never compared."""
    from math_verify import LatexExtractionConfig, parse, verify

    def parsed(text: str) -> list[Any]:
        return parse(
            f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )

    try:
        return bool(verify(parsed(gold), parsed(answer), timeout_seconds=None))
    except Exception:
        return False


if __name__ == "__main__":
    main(float(sys.argv[1]))
