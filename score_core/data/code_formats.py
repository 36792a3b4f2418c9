"""Rows of MBPP and of HumanEval, in their published columns, as problems with tests.

A new format is a function and a line in `FORMATS`.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from score_core.answers.code_tests import Suite

Columns = Mapping[str, Any]


def mbpp(row: Columns, shown: int) -> tuple[str, str, Suite]:
    """A row of MBPP (arXiv 2108.07732), full or sanitized: id, problem, tests.

    The first `shown` tests are part of the problem. What they call is what the solution defines, so a
    problem about `sum` has a `sum` of its own. The few tests of `challenge_test_list` are not taken.

    Raises:
        KeyError: a column is missing.
        SyntaxError: the solution or a test is no Python.
    """
    solution, tests = _text(row["code"]), [_text(test) for test in row["test_list"]]
    text = row["text"] if "text" in row else row["prompt"]
    # Tests name modules that only the solution imports.
    setup = "\n".join(
        [*_imports(solution), *row.get("test_imports", ()), _text(row.get("test_setup_code") or "")]
    )
    if shown and tests:
        listed = "\n".join(tests[:shown])
        text = f"{text.strip()}\nYour program should pass tests such as these:\n{listed}"
    names = _used("\n".join([setup, *tests])) & _defined(solution)
    return str(row["task_id"]), text, Suite(tuple(sorted(names)), tuple(tests), solution, setup=setup)


def humaneval(row: Columns, shown: int) -> tuple[str, str, Suite]:
    """A row of HumanEval (arXiv 2107.03374): id, problem, tests. All tests of a problem are one.

    The problem is the head of a function with its docstring, which stands before program and tests too:
    some heads hold imports and other functions. `shown` says nothing here: docstrings have examples.

    Raises:
        KeyError: a column is missing.
        SyntaxError: the head is no Python.
    """
    head, name = _text(row["prompt"]), str(row["entry_point"])
    ast.parse(head)
    test = f"{_text(row['test'])}\ncheck({name})\n"
    solution = head + _text(row["canonical_solution"])
    return str(row["task_id"]), head, Suite((name,), (test,), solution, preamble=head, setup=head)


FORMATS: dict[str, Callable[[Columns, int], tuple[str, str, Suite]]] = {"mbpp": mbpp, "humaneval": humaneval}


def _text(value: Any) -> str:
    return str(value).replace("\r\n", "\n")


def _used(code: str) -> set[str]:
    """The names that `code` reads."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def _imports(code: str) -> list[str]:
    """The import statements of `code` on its own level."""
    return [
        ast.unparse(node) for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def _defined(code: str) -> set[str]:
    """The functions, classes and variables that `code` defines on its own level."""
    names = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
