"""README.md and docs/ name only files, modules, make targets, stages and keys that exist."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from score_core.algorithms import SETTINGS
from score_core.config.parsing import parse_config
from tasks.commands.profiles import compose
from tasks.runner.pipeline import read_pipeline

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
FILES = LISTED.stdout.splitlines()
FOLDERS = {f"{parent}/" for file in FILES for parent in Path(file).parents if parent.name}
IGNORED = tuple(line[1:] for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/"))
RENAMED = ("docs/changes.md", "docs/moving.md")
READERS = (
    "conf/profile/mine.yaml",
    "data/mine",
    "data/capitals/train.jsonl",
    "data/capitals/test.jsonl",
)  # what a reader writes
SUFFIXES = (".py", ".yaml", ".md", ".csv", ".txt", ".toml", ".sbatch")
PLACEHOLDER = re.compile(r"[<>{}*…$=]|://|[A-Z]{5,}|^/")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    """A page, without the column of old or of others' names in the tables of those that have one."""
    text = (ROOT / page).read_text()
    return re.sub(r"^\| .*? \| ", "| ", text, flags=re.MULTILINE) if page in RENAMED else text


def spans_of(page: str) -> list[str]:
    """What stands in backticks, outside fences."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text_of(page)))]


def code_of(page: str) -> list[str]:
    """What stands in backticks, and the lines in fences, continued ones as one."""
    blocks = [text.replace("\\\n", "").splitlines()[1:-1] for text in FENCE.findall(text_of(page))]
    return spans_of(page) + [line for lines in blocks for line in lines]


def is_there(path: str) -> bool:
    """Whether a path is tracked, from the root or some folder on; or made by the pipeline or the reader."""
    if path in READERS or (path.startswith(IGNORED) and not path.endswith(".py")):
        return True
    return any(f"/{name}".endswith(f"/{path}") for name in (*FILES, *FOLDERS))


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    words = [span for span in spans_of(page) if " " not in span and not PLACEHOLDER.search(span)]
    paths = [word for word in words if "/" in word or word.endswith(SUFFIXES)]
    links = re.findall(r"\]\(([^)#:]+)\)", text_of(page))
    assert [path for path in paths if not is_there(path)] == []
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    common = (ROOT / "tasks/runner/command_line.py").read_text()
    wrong = []
    for code in code_of(page):
        wrong += [name for name in re.findall(r"\bmake ([a-z-]+)", code) if name not in targets]
        stages = re.findall(r"\bdvc (?:repro|commit) ([a-z]\w+)", code)
        wrong += [name for name in stages if name not in read_pipeline()]
        for module in re.findall(r"python -m ([\w.]+)", code):
            file = ROOT / f"{module.replace('.', '/')}.py"
            source = file.read_text() + common if file.exists() else ""
            options = re.findall(r"--[a-z]+", code.split(module, 1)[1])
            wrong += [f"{module} {name}" for name in options if name != "--help" and name not in source]
            wrong += [] if source else [module]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_keys_exist(page: str) -> None:
    profiles = [name for name in FILES if name.startswith("conf/profile/")]
    keys = set()
    for name in ("runtime.yaml", "conf/base.yaml", "conf/stages/score.yaml", *profiles):
        for key, section in yaml.safe_load((ROOT / name).read_text()).items():
            keys |= {key, *(f"{key}.{inner}" for inner in (section if isinstance(section, dict) else ()))}
    training = {key.removeprefix("training.") for key in keys if key.startswith("training.")}
    stages = {key.removesuffix(".algorithm") for key in keys if key.endswith(".algorithm")}
    keys |= {f"{stage}.{key}" for stage in stages for key in training}
    named = {
        span.split(":")[0] for span in spans_of(page) if re.fullmatch(r"[a-z]\w+\.[a-z]\w+(: .*)?", span)
    }
    named = {name for name in named if name.split(".")[0] in keys and not name.endswith(SUFFIXES)}
    named |= {key for code in code_of(page) for key in re.findall(r"(?:-S|--set) ([a-z][\w.]+)=", code)}
    assert named <= keys


def test_the_readmes_own_profile_is_valid(tmp_path: Path) -> None:
    (profile,) = re.findall(r"^```yaml\n(# @package.*?)^```$", text_of("README.md"), re.MULTILINE | re.DOTALL)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/profile/mine.yaml").write_text(profile)
    content: dict[str, Any] = yaml.safe_load(compose(["profile=mine"], tmp_path / "conf"))
    assert parse_config(content, SETTINGS, "README.md").profile == "mine"
