"""The rooms of score_core: stages depend on those that they import, and imports go one way between them."""

from pathlib import Path

import pytest

from tasks.runner.pipeline import code_of, command_of, read_pipeline
from tests.imports import ROOT, imported_files, reached

# The ground floor first; a room may import what stands above it. Rooms are folders, other names files.
ORDER = (
    ("errors.py",),
    ("files.py", "seeding.py", "hub.py", "problems.py"),
    ("config",),
    ("distributed.py",),
    ("models",),
    ("embedded",),
    ("answers",),
    ("data",),
    ("rewards",),
    ("rollout",),
    ("evaluation",),
    ("checkpointing",),
    ("rl",),
    ("algorithms",),
    ("report",),
)
# What a stage imports and does not depend on: a change in it changes no result.
EXEMPT = {
    "score_core/errors.py": "the words of errors",
    "score_core/files.py": "writes bytes as they are, and reads text, JSON and YAML",
    "score_core/hub.py": "fetches what a pinned revision names",
    "score_core/distributed.py": "how many processes share the work; the fingerprint holds their number",
    "score_core/config": "parses the parameters, whose values DVC compares itself",
    "score_core/checkpointing": "a resumed run gives the same result, or its tests fail",
    "tasks/runner": "how a command runs on a machine",
}
COMMANDS = sorted({command_of(stage) for stage in read_pipeline()})


def unit(file: Path) -> str:
    """What dvc.yaml can list of a file: the room or the folder that it is in, or itself."""
    parts = file.relative_to(ROOT).parts
    return "/".join(parts[:2])


def is_exempt(file: Path) -> bool:
    return unit(file) in EXEMPT


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stage_depends_on_what_its_command_imports(command):
    start = ROOT / "tasks" / f"{command}.py"
    imported = {unit(file) for file in reached(start, stop=is_exempt) if not is_exempt(file)}
    imported -= {"score_core/__init__.py", "tasks/__init__.py"}
    if command == "check":
        imported.add("score_core/config")  # the one result that hangs on it: whether it can be read
    assert imported | {unit(start)} == {str(path.relative_to(ROOT)) for path in code_of(command)}


@pytest.mark.parametrize("command", COMMANDS)
def test_stages_of_one_command_list_the_same_code(command):
    listed = {
        name: {path for path in stage["deps"] if path.startswith(("score_core/", "tasks/"))}
        for name, stage in read_pipeline().items()
        if command_of(name) == command
    }
    for name, paths in listed.items():
        assert {ROOT / path for path in paths} == set(code_of(command)), name


def test_what_is_exempt_exists_and_leads_to_nothing_that_computes():
    for name in EXEMPT:
        path = ROOT / name
        for file in [path] if path.is_file() else path.rglob("*.py"):
            beyond = {unit(one) for one in imported_files(file) if not is_exempt(one)}
            beyond -= {"score_core/__init__.py", "tasks/__init__.py"}
            # The parameters of a method are parsed by the method's own settings; a sampling server is started
            # for a model and a length of dialogues, by stages that depend on these rooms themselves.
            allowed = {"score_core/algorithms", "score_core/models", "score_core/rollout"}
            assert beyond <= allowed and (not beyond or name == "tasks/runner"), file
    for package in ("score_core", "tasks"):
        assert not (ROOT / package / "__init__.py").read_text().strip()


def test_imports_go_from_lower_rooms_to_upper_ones():
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    rooms = {path.name for path in (ROOT / "score_core").iterdir() if path.name not in ("__init__.py",)}
    assert rooms - {"__pycache__"} == set(level)
    wrong = []
    for file in sorted((ROOT / "score_core").rglob("*.py")):
        here = file.relative_to(ROOT / "score_core").parts[0]
        for other in imported_files(file):
            there = other.relative_to(ROOT / "score_core").parts[0]
            if "__init__.py" not in (here, there) and here != there and level[there] >= level[here]:
                wrong.append(f"{file.relative_to(ROOT)} imports {other.relative_to(ROOT)}")
    assert not wrong


def test_files_of_a_package_are_found_however_they_are_imported(tmp_path):
    files = {
        "package/__init__.py": "from . import styles",
        "package/page.py": "from .. import above\nimport json\ndef draw():\n    from package import ink",
        "package/styles.py": "import pandas.core",
        "package/ink.py": "",
        "above.py": "import package.page",
        "unused.py": "import above",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {str(file.relative_to(tmp_path)) for file in reached(tmp_path / "unused.py", root=tmp_path)}
    assert found == set(files) - {"unused.py"}
