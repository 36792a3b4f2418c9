"""The library reasoning_gym (arXiv 2505.24760), which is installed by those who want its exercises."""

import importlib
import json
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from score_core.errors import UserError, refusing

PACKAGE = "reasoning-gym==0.1.25"


def library() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("reasoning_gym") is None:
        raise UserError(f"reasoning_gym: the package is not installed; `pip install {PACKAGE}`.")
    return importlib.import_module("reasoning_gym")


def dataset(name: str, options: dict[str, Any], seed: int, size: int) -> Any:
    """The library's data set of that name.

    Raises:
        UserError: there is none, or it takes no such options.
    """
    gym = library()
    known = sorted(gym.factory.DATASETS)
    if name not in known:
        raise UserError(f"data.dataset: reasoning_gym has no data set {name!r}; known: {', '.join(known)}.")
    with refusing(f"data.options: {name} does not take them", "see the library's page on this data set"):
        return gym.create_dataset(name, seed=seed, size=size, **options)


@lru_cache(maxsize=16)
def scorer(name: str, options: str) -> Any:
    """The function that scores an answer to an entry; `options` are JSON."""
    return dataset(name, json.loads(options), 0, 1).score_answer
