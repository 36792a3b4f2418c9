"""The exceptions that command lines answer: "the user can mend this", and "told to stop"."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in a parameter, a file or a model folder.

    The message is one line for a person: it names the file, key or row, says what was expected and
    what was found, and what to do. Command lines print it without a traceback and exit with 2; any
    other exception is a bug and keeps its traceback.
    """


class NotFinite(UserError):  # noqa: N818 - says what it is
    """Numbers of a model, or of its training, that are NaN or infinite."""


@contextmanager
def refusing(what: str, remedy: str) -> Iterator[None]:
    """Where something of the user's enters: whatever its reader makes of it, only a `UserError` leaves.

    Libraries raise nearly anything over a file that they did not expect, so the class is not asked. The
    block holds nothing but the reading; in it, a mistake of ours would pass for the user's.

    Args:
        what: the file, folder or key, and what cannot be done with it, e.g. "a.csv: cannot be read".
        remedy: what to do.

    Raises:
        UserError: "WHAT (REASON); REMEDY."
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} ({one_line(error)}); {remedy}.") from error


def one_line(error: BaseException) -> str:
    """What an exception says, on one line of at most 200 characters."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = " ".join(str(error).split())[:200]
    # A KeyError says but the key, and some say nothing.
    return said if said and not isinstance(error, KeyError) else f"{type(error).__name__} {said}".rstrip()


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean NAME? ` with the nearest of the known names; nothing where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]}? " if found else ""


def unknown_name(key: str, name: str, known: Iterable[str]) -> UserError:
    """The error of a parameter `key` whose value is none of the `known` names; it suggests the nearest."""
    known = sorted(known)
    hint = nearest(name, known)
    return UserError(
        f"{key}: there is no {name!r}; {hint}{'Known' if hint else 'known'}: {', '.join(known)}."
    )


class Stopped(Exception):  # noqa: N818 - no error: everything is saved
    """Training stopped because it was told to, and can be resumed."""
