"""Programs like a right one with one thing changed, as a mistake would: to be repaired."""

import ast
import copy
from collections.abc import Iterator

_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Div,
    ast.Div: ast.FloorDiv,
    ast.Mod: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def changed(program: str) -> Iterator[str]:
    """Each program that differs from `program` in one operator or integer; outer ones come first.

    Comments and layout are those of `ast.unparse`. Loops may have lost their end; none of them is tried here.
    """
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError):
        return
    for at, node in enumerate(ast.walk(tree)):
        if _can_change(node):
            other = copy.deepcopy(tree)
            _change(next(found for number, found in enumerate(ast.walk(other)) if number == at))
            yield ast.unparse(other)


def _can_change(node: ast.AST) -> bool:
    match node:
        case ast.Compare(ops=[operator, *_]) | ast.BinOp(op=operator) | ast.BoolOp(op=operator):
            return type(operator) in _OTHER
        case ast.Constant(value=bool()):
            return False
        case ast.Constant(value=int()):
            return True
    return False


def _change(node: ast.AST) -> None:
    match node:
        case ast.Compare():
            node.ops[0] = _OTHER[type(node.ops[0])]()  # type: ignore[call-overload]
        case ast.BinOp() | ast.BoolOp():
            node.op = _OTHER[type(node.op)]()  # type: ignore[assignment]
        case ast.Constant(value=int()):
            node.value = int(node.value) + 1  # type: ignore[arg-type]
