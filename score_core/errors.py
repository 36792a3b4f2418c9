"""The exceptions that command lines answer: "the user can mend this", and "told to stop"."""


class UserError(Exception):
    """A mistake in a parameter, a file or a model folder.

    The message is one line for a person: it names the file, key or row, says what was expected and
    what was found, and what to do. Command lines print it without a traceback and exit with 2; any
    other exception is a bug and keeps its traceback.
    """


class Stopped(Exception):  # noqa: N818 - no error: everything is saved
    """Training stopped because it was told to, and can go on from where it is."""
