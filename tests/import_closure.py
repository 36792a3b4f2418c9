"""Which code each stage runs: its module and everything that it imports, however deep.

    python -m tests.import_closure     writes the lists into dvc.yaml, and says what changed

Read from the source, so that imports inside functions count. Files other than code that lie in an imported
package (templates, style sheets) belong to it, and so does a script beside it that a module names.
"""

import ast
import re
from pathlib import Path

import yaml

PACKAGES = ("score_core", "tasks")


def closure(module: str, root: Path = Path()) -> set[str]:
    """Paths, relative to `root`, of the code behind `module`, e.g. "tasks.report"."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name, root)
        if path is None or str(path.relative_to(root)) in found:
            continue
        found.add(str(path.relative_to(root)))
        if path.parent.name not in PACKAGES:
            found |= {
                str(file.relative_to(root))
                for file in path.parent.iterdir()
                if file.is_file() and file.suffix not in (".py", ".pyc")
            }
        waiting += _imports(name, path)
        waiting += [f"{name.rpartition('.')[0]}.{script}" for script in _scripts(path)]
    return {path for path in found if not _says_nothing(root / path)}


def code_of(deps: list[str]) -> set[str]:
    """Those of a stage's `deps` that are code, and not what other stages or the user provide."""
    return {dep for dep in deps if dep.split("/")[0] in PACKAGES}


def stages(root: Path = Path()) -> dict[str, dict]:
    """The stages of dvc.yaml, as they are written there."""
    return yaml.safe_load((root / "dvc.yaml").read_text())["stages"]


def _source(module: str, root: Path) -> Path | None:
    path = root / module.replace(".", "/")
    if module.split(".")[0] not in PACKAGES:
        return None
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _imports(module: str, path: Path) -> list[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join([*above, node.module] if node.module else above) if node.level else node.module
            # `from package import module` names a module, `from module import name` does not.
            names += [str(start), *(f"{start}.{alias.name}" for alias in node.names)]
    # Importing a.b.c runs a/__init__.py and a/b/__init__.py too.
    return [".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)]


def _scripts(path: Path) -> list[str]:
    """Names, without .py, of scripts that the module starts as processes of their own."""
    strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return [text[:-3] for text in strings if isinstance(text, str) and re.fullmatch(r"\w+\.py", text)]


def _says_nothing(path: Path) -> bool:
    """Whether a package's __init__.py holds a docstring at most."""
    return path.name == "__init__.py" and all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for node in ast.parse(path.read_text()).body
    )


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
