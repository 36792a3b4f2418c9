"""The report stage writes both files, or neither."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from score_core.errors import UserError
from tasks.report import add_arguments, run
from tests.run_files import config, files, write_run


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, problems=30)
    prompts = tmp_path / "prompts" / "addition"
    prompts.mkdir(parents=True)
    (prompts / "first.txt").write_text("{problem}=\n")
    (prompts / "retry.txt").write_text("check your answer\n")
    return tmp_path


def report():
    """Runs the stage on the files here."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    evaluated, trained = files(Path())
    words = ["--page", "reports/index.html", "--card", "reports/model_card.md"]
    words += [word for row in evaluated for word in ("--evaluated", *row)]
    words += [word for row in trained for word in ("--trained", *row)]
    run(parser.parse_args(words), config(), None)


def test_writes_page_and_card_the_same_twice(checkout):
    seen = []
    for _ in range(2):
        report()
        seen.append({path.name: path.read_bytes() for path in (checkout / "reports").iterdir()})
    assert set(seen[0]) == {"index.html", "model_card.md"}
    assert seen[0] == seen[1]


def test_missing_input_leaves_nothing(checkout):
    (checkout / "metrics" / "final.json").unlink()
    with pytest.raises(UserError, match="evaluate_final"):
        report()
    assert not (checkout / "reports").exists()


def test_importing_the_stage_is_cheap():
    """Help and parameter errors must not wait for plotting or training libraries."""
    code = (
        "import sys, tasks.report; print([m for m in ('matplotlib', 'pandas', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
