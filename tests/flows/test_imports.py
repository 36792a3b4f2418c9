"""The stages do without Prefect: nothing behind them imports it, and `dvc repro` runs where it is missing."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.import_closure import closure
from tests.test_pipeline import Checkout

ROOT = Path(__file__).resolve().parents[2]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def imported(path: Path) -> set[str]:
    """Top-level names of all that a module imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ["score_core", "tasks"])
def test_no_module_imports_what_orchestrates_it(package):
    forbidden = {"prefect", "dvc", "flows"} | ({"tasks"} if package == "score_core" else set())
    for path in sorted((ROOT / package).rglob("*.py")):
        assert not imported(path) & forbidden, path


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_behind_a_stage_is_of_flows(stage):
    assert not [path for path in closure(f"tasks.{stage}", ROOT) if path.startswith("flows/")]


def test_dvc_repro_runs_where_prefect_cannot_be_imported(tmp_path):
    checkout = Checkout(tmp_path)
    (tmp_path / "spy" / "prefect.py").write_text("raise ImportError('no Prefect here')\n")
    assert "no Prefect here" in checkout.run("python", "-c", "import prefect", fails=True)
    params = checkout.root / "params.yaml"
    params.write_text(re.sub(r"^smoke: false$", "smoke: true", params.read_text(), flags=re.MULTILINE))
    assert checkout.repro("download_data") == ["download_data"]
