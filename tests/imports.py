"""What modules import, read from their source, so that imports inside functions count too."""

import ast
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imports_of(file: Path, root: Path = ROOT) -> set[str]:
    """Dotted names of all that a file names in an import: modules, and what is taken from them."""
    package = list(file.relative_to(root).with_suffix("").parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            # `from package import module` names a module, `from module import name` does not.
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def imported_files(file: Path, root: Path = ROOT) -> set[Path]:
    """The files below `root` that importing a file's imports runs, packages' `__init__.py` among them."""
    found = set()
    for name in imports_of(file, root):
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = root.joinpath(*parts[:end])
            found |= {one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()}
    return found


def reached(start: Path, stop: Callable[[Path], bool] = lambda file: False, root: Path = ROOT) -> set[Path]:
    """All files that `start` imports, however deep; what `stop` accepts is reached, and not followed."""
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        new = imported_files(waiting.pop(), root) - found
        found |= new
        waiting += [file for file in new if not stop(file)]
    return found
