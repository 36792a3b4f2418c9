"""Where the time of training goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from score_core.rollout.roll_out import GRADING, SAMPLING

LEARNING = "learning"  # forward and backward
PARTS = (SAMPLING, GRADING, LEARNING)


class Stopwatch:
    """Seconds of the parts of a step, and of the whole; what is no part is the rest."""

    def __init__(self) -> None:
        self._parts: dict[str, float] = defaultdict(float)
        self._began = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what happens inside, to its end on the device too."""
        began = time.monotonic()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._parts[name] += time.monotonic() - began

    def lap(self) -> dict[str, float]:
        """Seconds since the last lap: `seconds` in all, and of each part; starts the next."""
        now = time.monotonic()
        found = {"seconds": now - self._began, **{name: self._parts[name] for name in PARTS}}
        self._began = now
        self._parts.clear()
        return found
