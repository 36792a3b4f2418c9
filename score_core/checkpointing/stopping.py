"""Being told to stop: Ctrl-C and SIGTERM set a flag that training looks at between steps."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAID = b"\nstopping after this step, once it is saved\n"


class Stop:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        self.asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """True once a signal has come."""
        return self.asked_at is not None

    @contextmanager
    def deferring_signals(self) -> Iterator["Stop"]:
        """The two signals only set the flag while the block runs; a second Ctrl-C still ends at once.

        Does nothing outside the main thread, where Python delivers no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # One Ctrl-C may arrive twice: from the terminal, and passed on by what started this process.
        if number == signal.SIGINT and self.asked_at is not None and time.monotonic() - self.asked_at > 1:
            raise KeyboardInterrupt
        if self.asked_at is None:
            self.asked_at = time.monotonic()
            os.write(2, SAID)  # logging may be at work in the very moment
