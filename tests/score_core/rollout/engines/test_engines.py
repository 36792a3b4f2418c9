"""Engines by name."""

import pytest

from score_core.errors import UserError
from score_core.rollout.engines import ENGINES, make_engine
from score_core.rollout.engines.builtin import BuiltinEngine


def test_an_engine_is_made_by_its_name() -> None:
    assert isinstance(make_engine("builtin"), BuiltinEngine)
    with pytest.raises(UserError, match=r"engine: there is no 'bultin'; did you mean builtin\?"):
        make_engine("bultin")


@pytest.mark.parametrize("name", ENGINES)
def test_nothing_is_sampled_before_weights_are_loaded(name: str) -> None:
    with pytest.raises(AssertionError, match="load"):
        assert make_engine(name).device
