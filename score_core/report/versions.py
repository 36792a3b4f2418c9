"""Which libraries made a page."""

import platform
from importlib.metadata import distributions

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "pandas", "math-verify", "matplotlib")


def installed_versions() -> list[tuple[str, str]]:
    """Name and version of Python and of what computes.

    No times, no machine names and no commit, so that equal runs give equal pages: the page's hash is in
    dvc.lock, and the commits that hold it there are those that made it.
    """
    installed = {found.name.lower(): found.version for found in distributions()}
    libraries = [(name, installed.get(name, "not installed")) for name in LIBRARIES]
    return [("Python", platform.python_version()), *libraries]
