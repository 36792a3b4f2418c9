"""Outputs that cannot be written: what was there stays, and one line says why."""

import errno
import os
import re
from pathlib import Path

import pytest
from safetensors import SafetensorError

from score_core.errors import UserError
from score_core.files import replacing


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        # What safetensors says on a full disk; there is no number in it.
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_is_said_in_a_line(tmp_path: Path, error: Exception, folder: bool) -> None:
    target = tmp_path / "output"
    target.write_text("of the run before")
    line = f"{re.escape(str(target))}: the disk is full .* free some space and run the same command again"
    with pytest.raises(UserError, match=line) as raised, replacing(target) as temporary:
        if folder:
            temporary.mkdir()
            (temporary / "half").touch()
        raise error
    assert "\n" not in str(raised.value)
    assert target.read_text() == "of the run before"
    assert list(tmp_path.iterdir()) == [target]


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    for error in (OSError(errno.EIO, "a broken disk"), UserError("No space left on device, says the hub")):
        with pytest.raises(type(error)) as raised, replacing(tmp_path / "output"):
            raise error
        assert raised.value is error
    assert not list(tmp_path.iterdir())
