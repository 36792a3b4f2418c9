"""Engines by name."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from score_core.config.runtime import Runtime
from score_core.config.training import Sampling
from score_core.errors import UserError, unknown_name
from score_core.rollout.engines.engine import TOLERATED, DType, Engine, Setting


@dataclass(frozen=True)
class Later:
    """An engine that is imported once it is used: what only one of them needs costs the others nothing."""

    module: str
    name: str
    reproducible: bool

    def make(self, setting: Setting) -> Engine:
        """The class's own."""
        kind: type[Engine] = getattr(import_module(f"{__name__}.{self.module}"), self.name)
        return kind.make(setting)


ENGINES: dict[str, type[Engine] | Later] = {
    "builtin": Later("builtin", "BuiltinEngine", reproducible=True),
    "vllm": Later("vllm", "VllmEngine", reproducible=False),
}


def engine_name(runtime: Runtime, sampling: Sampling, section: str) -> str:
    """The engine that samples, by its name; cheap, so asked before anything is loaded or started.

    Args:
        sampling: what the parameters ask for.
        section: of params.yaml, where they do, for the message.

    Raises:
        UserError: there is no such engine, or it is not reproducible and has to be.
    """
    name = runtime.engine_for(sampling)
    if name not in ENGINES:
        raise unknown_name("runtime.yaml: engine", name, {*ENGINES, "auto"})
    if sampling == "reproducible" and not ENGINES[name].reproducible:
        raise UserError(
            f"params.yaml: {section}.sampling: reproducible expects equal bits whenever the same is asked, "
            f"and runtime.yaml: engine: {name} gives others; use engine: builtin, or {section}.sampling: any."
        )
    return name


def sampled_by(name: str) -> dict[str, Any]:
    """What the metrics say of an engine: its name, and whether it gives the same bits again."""
    return {"engine": name, "reproducible": ENGINES[name].reproducible}


def make_engine(name: str, runtime: Runtime, dtype: DType, max_gap: float | None = None) -> Engine:
    """The engine of a name that `engine_name` gave.

    Args:
        dtype: what the model computes in.
        max_gap: `training.max_gap`, nats a token; None takes the one of `dtype`.
    """
    return ENGINES[name].make(Setting(runtime, dtype, max_gap or TOLERATED[dtype]))
