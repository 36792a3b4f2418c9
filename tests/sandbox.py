"""What tests that run programs need: a sandbox, or the reason why there is none."""

import pytest

from score_core.answers.sandbox.pool import mechanism
from score_core.errors import UserError


def reason() -> str | None:
    """Why this machine has no sandbox; None where it has one."""
    try:
        mechanism()
    except UserError as error:
        return str(error)
    return None


needs_sandbox = pytest.mark.skipif(reason() is not None, reason=str(reason()))
