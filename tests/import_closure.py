"""Which code each stage runs: its module and everything that it imports, however deep.

    python -m tests.import_closure     writes the lists into dvc.yaml, and says what changed

What counts as imported is said in `score_core/checkpointing/import_closure.py`.
"""

import re
from pathlib import Path

import yaml

from score_core.checkpointing import import_closure

PACKAGES = ("score_core", "tasks")


def closure(module: str, root: Path = Path()) -> set[str]:
    """Paths, relative to `root`, of the pipeline's code behind `module`."""
    return import_closure.closure(module, PACKAGES, root)


def code_of(deps: list[str]) -> set[str]:
    """Those of a stage's `deps` that are code, and not what other stages or the user provide."""
    return {dep for dep in deps if dep.split("/")[0] in PACKAGES}


def stages(root: Path = Path()) -> dict[str, dict]:
    """The stages of dvc.yaml, as they are written there."""
    return yaml.safe_load((root / "dvc.yaml").read_text())["stages"]


def _rewrite(text: str, stage: str, code: set[str]) -> str:
    """`dvc.yaml` with the code among a stage's deps replaced, all else kept to the letter."""
    block = re.search(rf"^  {stage}:\n(?:(?:    .*)?\n)*", text, re.MULTILINE)
    assert block, stage
    lines = [
        line
        for line in block[0].splitlines(keepends=True)
        if not line.startswith(tuple(f"      - {package}/" for package in PACKAGES))
    ]
    if "    deps:\n" not in lines:
        lines.insert(2, "    deps:\n")
    end = lines.index("    deps:\n") + 1
    while lines[end].startswith("      "):
        end += 1
    lines[end:end] = [f"      - {path}\n" for path in sorted(code, key=_order)]
    return text.replace(block[0], "".join(lines))


def _order(path: str) -> tuple[bool, str]:
    return not path.startswith("tasks/"), path


def main() -> None:
    """Brings dvc.yaml up to date."""
    file = Path("dvc.yaml")
    text = file.read_text()
    for stage, content in stages().items():
        needed, listed = closure(f"tasks.{stage}"), code_of(content.get("deps", []))
        for sign, paths in (("+", needed - listed), ("-", listed - needed)):
            for path in sorted(paths):
                print(f"{stage}: {sign} {path}")
        text = _rewrite(text, stage, needed)
    file.write_text(text)


if __name__ == "__main__":
    main()
