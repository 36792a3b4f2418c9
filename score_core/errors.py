"""The exceptions that command lines answer: "the user can mend this", and "told to stop"."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a parameter, a file or a model folder.

    The message is one line for a person: it names the file, key or row, says what was expected and
    what was found, and what to do. Command lines print it without a traceback and exit with 2; any
    other exception is a bug and keeps its traceback.
    """


class Stopped(Exception):  # noqa: N818 - no error: everything is saved
    """Training stopped because it was told to, and can go on from where it is."""


def unknown_name(where: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is none of `known`: it names the nearest, and all.

    Args:
        where: the file and key, or the argument, that gave the name.
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"{where}: there is no {name}; {hint}Known are {', '.join(known)}.")
