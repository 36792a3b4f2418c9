"""The exceptions that command lines answer: "the user can mend this", and "told to stop"."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a parameter, a file or a model folder.

    The message is one line for a person: it names the file, key or row, says what was expected and
    what was found, and what to do. Command lines print it without a traceback and exit with 2; any
    other exception is a bug and keeps its traceback.
    """


def unknown_name(key: str, name: str, known: Iterable[str]) -> UserError:
    """The error of a parameter `key` whose value is none of the `known` names; it suggests the nearest."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? Known" if nearest else "known"
    return UserError(f"{key}: there is no {name!r}; {hint}: {', '.join(known)}.")


class Stopped(Exception):  # noqa: N818 - no error: everything is saved
    """Training stopped because it was told to, and can be resumed."""
