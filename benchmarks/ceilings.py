"""What the machine can do at most: a matrix product, and a copy in memory."""

import time
from collections.abc import Callable

import torch

CORES = 2  # that the benchmarks of steps compute on
SIDE, COPIED = 2048, 2**28  # of the matrices, on a CPU; bytes
ON_GPU = 4  # times as large there


def ceilings(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """The best of several: operations a second of a square product in `dtype`, bytes a second of a copy."""
    side, copied = (SIDE, COPIED) if device == "cpu" else (ON_GPU * SIDE, ON_GPU * COPIED)
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    source = torch.zeros(copied // 4, device=device)
    target = torch.empty_like(source)
    product = best(lambda: torch.mm(left, right))
    return {
        "product_flops": 2 * side**3 / product,
        "copy_bytes": 2 * copied / best(lambda: target.copy_(source)),
    }


def best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of eight calls, after one that warms up."""
    times = [seconds_of(run) for _ in range(9)]
    return min(times[1:])


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds until all is done that `run` has a GPU do."""
    began = time.monotonic()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - began
