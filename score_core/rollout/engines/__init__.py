"""Engines by name."""

from score_core.errors import unknown_name
from score_core.rollout.engines.builtin import BuiltinEngine
from score_core.rollout.engines.engine import Engine

ENGINES: dict[str, type[Engine]] = {"builtin": BuiltinEngine}


def make_engine(name: str) -> Engine:
    """The engine that `engine` in runtime.yaml names.

    Raises:
        UserError: there is no such engine.
    """
    if name not in ENGINES:
        raise unknown_name("runtime.yaml: engine", name, ENGINES)
    return ENGINES[name]()
