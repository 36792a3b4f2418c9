"""Engines by name."""

import pytest

from score_core.errors import UserError
from score_core.rollout.engines import ENGINES, engine_name, make_engine
from score_core.rollout.engines.builtin import BuiltinEngine
from tests.configs import runtime

STANDING = {"sampler": "http://127.0.0.1:1"}


def test_an_engine_is_made_by_its_name() -> None:
    assert isinstance(make_engine("builtin", runtime(), "float32"), BuiltinEngine)
    with pytest.raises(UserError, match=r"engine: there is no 'bultin'; did you mean builtin\?"):
        engine_name(runtime(engine="bultin"), "any", "training")


@pytest.mark.parametrize("name", ENGINES)
def test_nothing_is_sampled_before_weights_are_loaded(name: str) -> None:
    engine = make_engine(name, runtime(launch=STANDING), "float32")
    assert engine.reproducible == ENGINES[name].reproducible
    with pytest.raises(AssertionError, match="load"):
        assert engine.device
