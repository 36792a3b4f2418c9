"""What comes of an input: tried in a copy of the workplace, and watched for what must not be."""

import contextlib
import io
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import huggingface_hub
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from score_core.files import tree_digests
from tasks.runner.exits import exit_code

PATIENCE = 120  # seconds for what takes one
Draw = Callable[[st.SearchStrategy[Any]], Any]
Work = Callable[[], object]


class Hang(BaseException):
    """An input was not answered in time."""


def outcomes(kind: Callable[[Draw], Work], count: int, workplace: Path) -> list[tuple[str, str]]:
    """Tries `count` inputs of a kind, the same each time; each with what came of it, and what was said.

    That is "accepted", "refused", or what must not be: "traceback", "hang" or "output changed".
    """
    found: list[tuple[str, str]] = []

    @seed(7)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def attack(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(workplace, folder, dirs_exist_ok=True)
            with contextlib.chdir(folder):
                found.append(outcome(kind(data.draw)))

    with patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True):
        attack()
    return found


def outcome(work: Work) -> tuple[str, str]:
    """What comes of a stage in the present folder, as a command line runs it, and what is said."""
    Path("out").mkdir()
    Path("out/before").write_text("what was there")
    before, said = _outputs(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), _watched():
            code = exit_code("fuzz", work)
    except Hang:
        return "hang", traceback.format_exc()
    except Exception:
        return "traceback", traceback.format_exc()
    line = (said.getvalue().splitlines() or [""])[-1]
    if code == 0:
        return "accepted", ""
    if code != 2 or not line.startswith("error: "):
        return "traceback", said.getvalue()
    return ("refused" if _outputs() == before else "output changed"), line


def _outputs() -> dict[str, str]:
    names = tree_digests(Path())
    return {name: digest for name, digest in names.items() if name.startswith(("out", ".out"))}


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
