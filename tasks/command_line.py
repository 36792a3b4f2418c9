"""What every stage's command line does around its `run`: read, check, run, account.

    python -m tasks.<stage> [--params params.yaml] [--runtime runtime.yaml]

Exit codes: 0, 2 for a mistake that the user can mend (one line on standard error), 130 when interrupted,
143 when terminated. Anything else is a bug and keeps its traceback.
"""

import argparse
import ctypes
import hashlib
import importlib.metadata
import logging
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from score_core.config import Config, load_config, load_runtime
from score_core.errors import UserError
from score_core.files import check_writable, write_json
from score_core.schema import Runtime

RUNS = Path(".runs")
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
# For libraries that read it when they are loaded, which is later than this.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "passive",  # waiting threads sleep: steadier times where others use the cores too
    "TOKENIZERS_PARALLELISM": "false",
}
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "pandas", "pyarrow")


def run_stage(stage: str, run: Callable[[Config, Runtime], None], outputs: Sequence[Path] = ()) -> None:
    """Runs a stage as a command line, and exits with a message in place of a traceback where it can.

    Args:
        stage: its name in dvc.yaml.
        run: does the work; its module's docstring is what --help says.
        outputs: what it writes; all must be writable before it starts.
    """
    arguments = _arguments(stage, sys.modules[run.__module__].__doc__ or "")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _end_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        config, runtime = load_config(arguments.params), load_runtime(arguments.runtime)
        logging.basicConfig(
            level=runtime.log_level.upper(),
            format=f"%(asctime)s {stage} %(levelname)s %(message)s",
            datefmt="%H:%M:%S",
        )
        for library in ("httpx", "matplotlib", "fsspec", "urllib3"):
            logging.getLogger(library).setLevel(logging.WARNING)
        # Where there is no GPU it says so whenever it is imported, used or not.
        logging.getLogger("DeepSpeed").addFilter(lambda line: "accelerator to CPU" not in line.getMessage())
        manifest = RUNS / stage / "manifest.json"
        for output in (*outputs, manifest):
            check_writable(output)
        run(config, runtime)
        write_json(manifest, _account(started, time.monotonic() - clock, arguments.params, runtime))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{stage}: interrupted; the same command starts it again", file=sys.stderr)
        sys.exit(130)


def _arguments(stage: str, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m tasks.{stage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="what to compute")
    parser.add_argument("--runtime", type=Path, default=Path("runtime.yaml"), help="how to run it here")
    return parser.parse_args()


def _terminate(number: int, frame: object) -> None:
    # An exception, and not the end there and then, so that temporary files are removed.
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """Has the kernel terminate this process when the one that started it dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _account(started: datetime, seconds: float, params: Path, runtime: Runtime) -> dict[str, Any]:
    """What varies from run to run, and so is no output of a stage."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "runtime": runtime.model_dump(),
        "params_sha256": hashlib.sha256(params.read_bytes()).hexdigest(),
        "commit": _commit(),
        "platform": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            # Those that this stage has loaded: what it did not load had no part in the result.
            **{name: importlib.metadata.version(name) for name in LIBRARIES if name in sys.modules},
        },
    }


def _commit() -> str | None:
    """The commit of the checkout, with `+` if tracked files differ from it; None outside of git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        clean = subprocess.run(["git", "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("" if clean.returncode == 0 else "+")
