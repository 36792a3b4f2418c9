"""dvc.yaml names all the code behind each stage and nothing else, and the very outputs that it writes."""

import importlib
from pathlib import Path

import pytest

from tests.import_closure import closure, code_of, stages

ROOT = Path(__file__).resolve().parent.parent
STAGES = stages(ROOT)


def paths(entries: list) -> list[str]:
    """The paths of dvc.yaml's outputs, which have settings or not."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def outputs(stage: dict) -> list[str]:
    """All outputs of a stage."""
    return [path for kind in ("outs", "metrics", "plots") for path in paths(stage.get(kind, []))]


@pytest.mark.parametrize("stage", STAGES)
def test_what_git_keeps_does_not_switch_the_run_cache_off(stage):
    # DVC has no run cache for a stage with an output outside the cache that is no metric and no plot.
    assert all(isinstance(entry, str) for entry in STAGES[stage].get("outs", []))


@pytest.mark.parametrize("stage", STAGES)
def test_code_among_the_dependencies_is_what_the_stage_imports(stage):
    needed, listed = closure(f"tasks.{stage}", ROOT), code_of(STAGES[stage]["deps"])
    assert listed == needed, (
        f"{stage} in dvc.yaml: missing {sorted(needed - listed)}, too many {sorted(listed - needed)}; "
        "`python -m tests.import_closure` mends it"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_runs_its_own_module_and_writes_what_that_says(stage):
    content = STAGES[stage]
    assert content["cmd"] == f"python -m tasks.{stage}"
    assert sorted(outputs(content)) == sorted(map(str, importlib.import_module(f"tasks.{stage}").OUTPUTS))


def test_no_stage_writes_into_anothers_output():
    # A card written into models/stage2 later would make DVC train Stage II again.
    written = [Path(path) for stage in STAGES.values() for path in outputs(stage)]
    assert len(written) == len(set(written))
    assert not [(one, other) for one in written for other in written if one in other.parents]


def test_the_closure_sees_what_a_stage_can_reach(tmp_path):
    """On a small package: imports in functions, of names and modules, relative ones, scripts, templates."""
    files = {
        "tasks/__init__.py": '"""Nothing."""',
        "tasks/stage.py": "import json\ndef run():\n    from score_core import inside, a_name\n",
        "score_core/__init__.py": '"""Says nothing."""',
        "score_core/inside.py": "from score_core.deep.page import draw",
        "score_core/deep/__init__.py": "from . import styles",
        "score_core/deep/page.py": "from .. import above\nimport pandas.core",
        "score_core/deep/styles.py": "",
        "score_core/deep/page.css": "",
        "score_core/above.py": "SCRIPT = Path(__file__).with_name('worker.py')",
        "score_core/worker.py": "import score_core.far",
        "score_core/far.py": "",
        "score_core/unused.py": "import score_core.inside",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    silent = {"tasks/__init__.py", "score_core/__init__.py", "score_core/unused.py"}
    assert closure("tasks.stage", tmp_path) == set(files) - silent
