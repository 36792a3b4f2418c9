"""Which code is behind a module: its own source and everything that it imports, however deep.

Read from the source, so that imports inside functions count. Files other than code that lie in an imported
package (templates, style sheets) belong to it, and so does a script beside it that a module names.
"""

import ast
import re
from collections.abc import Sequence
from pathlib import Path


def closure(module: str, packages: Sequence[str], root: Path = Path()) -> set[str]:
    """Paths, relative to `root`, of the code behind `module`, e.g. "tasks.report".

    Args:
        packages: top-level packages below `root` that are followed; others are somebody else's.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name, root) if name.split(".")[0] in packages else None
        if path is None or str(path.relative_to(root)) in found:
            continue
        found.add(str(path.relative_to(root)))
        if path.parent.name not in packages:
            found |= {
                str(file.relative_to(root))
                for file in path.parent.iterdir()
                if file.is_file() and file.suffix not in (".py", ".pyc")
            }
        waiting += _imports(name, path)
        waiting += [f"{name.rpartition('.')[0]}.{script}" for script in _scripts(path)]
    return {path for path in found if not _says_nothing(root / path)}


def _source(module: str, root: Path) -> Path | None:
    path = root / module.replace(".", "/")
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
