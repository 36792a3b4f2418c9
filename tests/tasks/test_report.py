"""The report stage writes both files, or neither."""

import subprocess
import sys

import pytest

from score_core.config.runtime import Runtime
from score_core.errors import UserError
from tasks.report import run
from tests.run_files import config, write_run


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, problems=30)
    prompts = tmp_path / "prompts" / "addition"
    prompts.mkdir(parents=True)
    (prompts / "first.txt").write_text("{problem}=\n")
    (prompts / "retry.txt").write_text("check your answer\n")
    return tmp_path


def test_writes_page_and_card_the_same_twice(checkout):
    seen = []
    for _ in range(2):
        run(config(), Runtime())
        seen.append({path.name: path.read_bytes() for path in (checkout / "reports").iterdir()})
    assert set(seen[0]) == {"index.html", "model_card.md"}
    assert seen[0] == seen[1]


def test_missing_input_leaves_nothing(checkout):
    (checkout / "metrics" / "final.json").unlink()
    with pytest.raises(UserError, match="evaluate_final"):
        run(config(), Runtime())
    assert not (checkout / "reports").exists()


def test_importing_the_stage_is_cheap():
    """Help and parameter errors must not wait for plotting or training libraries."""
    code = (
        "import sys, tasks.report; print([m for m in ('matplotlib', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
