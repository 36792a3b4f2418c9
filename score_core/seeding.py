"""One seed in the configuration, a derived one for each use.

Streams are derived by name, so adding a use never shifts the numbers another use draws, and two
uses never share a stream by accident.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the use that `names` spell, e.g. `derive_seed(7, "stage1", "sampling")`."""
    key = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent NumPy generator for the use that `names` spell."""
    return np.random.default_rng(derive_seed(seed, *names))
