"""Fetching from the Hugging Face hub: pinned, never with code of its own, clear when it fails."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from score_core.errors import UserError

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def snapshot(kind: Literal["model", "dataset"], path: str, revision: str, files: Sequence[str]) -> Path:
    """Fetches those files of a repository's top folder whose names match a pattern in `files`.

    Returns:
        The folder of the hub's own cache that holds them, whose name is the commit `revision`
        stands for. A cached copy serves without a connection.

    Raises:
        UserError: there is no such repository or revision, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(kind, path, revision):
        return Path(
            snapshot_download(
                path,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(files),
                ignore_patterns=["*/*", ".*"],
            )
        )


@contextmanager
def hub_errors(kind: Literal["model", "dataset"], path: str, revision: str) -> Iterator[None]:
    """Turns the hub's errors about a repository into one-line `UserError`s."""
    from huggingface_hub import errors

    section = "data" if kind == "dataset" else "model"
    it = f"the hub {kind} {path}"
    causes = {  # in this order: the second is a kind of the third
        errors.HFValidationError: f"path: expected the name of a hub {kind}, owner/name, found {path!r}; for "
        f"a folder set {section}.source: local",
        errors.GatedRepoError: f"path: {it} asks for permission; accept its terms on the hub and set "
        "HF_TOKEN in the environment",
        errors.RepositoryNotFoundError: f"path: the hub has no {kind} {path} that this user may read; check "
        "the name, or set HF_TOKEN in the environment if it is private; if it is gone, name another copy, or "
        f"download one and set {section}.source: local",
        errors.RevisionNotFoundError: f"revision: {it} has no revision {revision}; expected a branch, a tag "
        "or a commit",
    }
    try:
        yield
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        fallback = (
            f"path: {it} at revision {revision} could not be fetched ({reason}); connect to the internet, or "
            f"download it elsewhere and set {section}.source: local"
        )
        says = next((text for cause, text in causes.items() if isinstance(error, cause)), fallback)
        raise UserError(f"{section}.{says}.") from error
