"""What varies from run to run, and so is no output of a stage: times, memory, versions.

It is written beside the run's log, as `.runs/<stage>/manifest.json`.
"""

import argparse
import hashlib
import importlib.metadata
import logging
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from score_core.config.runtime import Runtime
from score_core.files import write_json
from tasks.runner.exits import is_first

log = logging.getLogger(__name__)
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "pandas", "pyarrow")


def write_manifest(file: Path, given: argparse.Namespace, runtime: Runtime, started: float) -> None:
    """Writes the account of a run and logs it in a line; every process of the run must call.

    Args:
        given: the stage's command line, with `params` and `set`.
        started: seconds since the epoch.
    """
    engines: Any = sys.modules.get("score_core.rollout.engines")  # of a stage that samples
    sampled = engines.sampled_by(runtime.engine) if engines and runtime.engine in engines.ENGINES else {}
    seconds, peaks = time.time() - started, _memory_peaks()
    memory, gpu = (max(column) for column in zip(*peaks, strict=True))
    if not is_first():
        return
    content = {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        # Of the process that took most.
        "peak_memory_bytes": memory,
        "peak_gpu_memory_bytes": gpu,
        "processes": len(peaks),
        **sampled,
        # To the bit that is on CPUs, and by one process.
        **({"reproducible": sampled["reproducible"] and len(peaks) == 1 and not gpu} if sampled else {}),
        "runtime": runtime.model_dump(),
        "params_sha256": hashlib.sha256(given.params.read_bytes()).hexdigest(),
        "set": given.set,
        "commit": _commit(),
        "platform": platform.platform(),
        "kernels": _kernels(),
        "versions": {
            "python": platform.python_version(),
            # Those that this stage has loaded: what it did not load had no part in the result.
            **{name: importlib.metadata.version(name) for name in LIBRARIES if name in sys.modules},
        },
    }
    write_json(file, content)
    by = "1 process" if len(peaks) == 1 else f"{len(peaks)} processes"
    most = f"{memory / 1e9:.2f} GB" + (f", {gpu / 1e9:.2f} GB of its GPU's" if gpu else "")
    log.info("done in %.1f s by %s; most memory in one: %s", seconds, by, most)


def _memory_peaks() -> list[tuple[int, int]]:
    """The most CPU and GPU memory that each process has held, in bytes; the last thing they do together."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    torch = sys.modules.get("torch")
    gpu = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    peaks = [(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, gpu)]
    if torch and torch.distributed.is_initialized():
        mine, peaks = peaks[0], [(0, 0)] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(peaks, mine)
        torch.distributed.destroy_process_group()
    return peaks


def _kernels() -> str | None:
    """What torch chose for this processor, or was told to take; None where it was not loaded."""
    torch = sys.modules.get("torch")
    return torch.backends.cpu.get_cpu_capability() if torch else None


def _commit() -> str | None:
    """The commit of the checkout, with `+` if tracked files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
