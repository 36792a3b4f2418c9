"""What a stage prints, made fit for a log: whole lines, progress at a readable rate, no secrets."""

import codecs
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote

SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS|AUTH_STRING|WEBHOOK|_PAT)$", re.I)
# A token may stand where a user does, and a webhook's address is its own password.
SECRET_URL = re.compile(r"://[^/\s]*@|hook", re.I)
PASSWORD = re.compile(r"://[^/\s:@]*:([^/\s]+)@")  # in an address
SHORTEST = 6  # characters; a shorter value is a switch or a number, and would be masked all over the text
MASK = "********"
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def secrets(environment: Mapping[str, str]) -> list[str]:
    """Values of variables whose names say that they are secret, the longest first.

    An address with a password is one whatever its variable is called, and so is the password alone: programs
    take it out of the address. One that is called `_URL` is one also with a user alone, or of a webhook.
    """
    found: set[str] = set()
    for name, value in environment.items():
        passwords = PASSWORD.findall(value)
        is_url = name.upper().endswith("_URL")
        if passwords or SECRET_NAME.search(name) or (is_url and SECRET_URL.search(f"{value} {name}")):
            texts = (value, *passwords, *map(unquote, passwords))
            # A key may span lines, and is printed one at a time.
            lines = (line.strip() for text in texts for line in text.splitlines())
            found |= {line for line in lines if len(line) >= SHORTEST}
    return sorted(found, key=len, reverse=True)


def masker(environment: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces what is secret in the environment wherever it stands in a text."""
    hidden = secrets(environment)
    if not hidden:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, hidden)))
    return lambda text: pattern.sub(MASK, text)


class Lines:
    """Bytes in, lines out.

    A line that ends with a carriage return is to be written over by the next: of a progress bar's many,
    one is let through every few seconds, and the last one.
    """

    def __init__(
        self, emit: Callable[[str], None], every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            emit: takes a line, without its end.
            every: seconds between two lines of progress.
        """
        self.emit, self.every, self.clock = emit, every, clock
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self._progress = ""
        self._shown = -float("inf")

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, cut anywhere."""
        text = self._rest + self._decode(data)
        # A carriage return at the very end may be the first half of a line end.
        *whole, self._rest = re.split(r"(?<=\n)|(?<=\r)(?!\n|\Z)", text)
        for line in whole:
            if line.endswith("\n"):
                self._progress = ""
                self._say(line)
            elif line.strip():  # a bar writes the carriage return first
                self._progress = line
                self._show_progress()

    def close(self) -> None:
        """The end: what is left over is a line too."""
        for text in (self._progress, self._rest + self._decode(b"", True)):
            self._say(text)
        self._progress = self._rest = ""

    def _show_progress(self) -> None:
        now = self.clock()
        if now - self._shown >= self.every:
            self._shown = now
            self._say(self._progress)
            self._progress = ""

    def _say(self, line: str) -> None:
        text = TERMINAL_CODES.sub("", line).strip("\r\n").rstrip()
        if text.strip():
            self.emit(text)
