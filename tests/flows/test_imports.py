"""The stages do without Prefect: nothing behind them imports it, and `dvc repro` runs where it is missing."""

import re
from pathlib import Path

import pytest

from tests.imports import imports_of
from tests.test_pipeline import Checkout

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["score_core", "tasks"])
def test_no_module_imports_what_orchestrates_it(package):
    forbidden = {"prefect", "dvc", "flows"} | ({"tasks"} if package == "score_core" else set())
    for path in sorted((ROOT / package).rglob("*.py")):
        assert not {name.split(".")[0] for name in imports_of(path)} & forbidden, path


def test_dvc_repro_runs_where_prefect_cannot_be_imported(tmp_path):
    checkout = Checkout(tmp_path)
    (tmp_path / "spy" / "prefect.py").write_text("raise ImportError('no Prefect here')\n")
    assert "no Prefect here" in checkout.run("python", "-c", "import prefect", fails=True)
    params = checkout.root / "params.yaml"
    params.write_text(re.sub(r"^smoke: false$", "smoke: true", params.read_text(), flags=re.MULTILINE))
    assert checkout.repro("download_data") == ["download_data"]
