"""What every stage's command line does around its `run`: read, check, run, account.

    python -m tasks.<stage> [--params params.yaml] [--runtime runtime.yaml]

Exit codes: 0, 2 for a mistake that the user can mend (one line on standard error), 75 (EX_TEMPFAIL) when
training was interrupted or terminated and has saved, or when another process of the run is lost, so that a
scheduler should run it again, 130 when a stage was interrupted otherwise and 143 when it was terminated.
Anything else is a bug and keeps its traceback.

A stage may run as many processes (tasks/runner/launch.py). Each runs all of this; the first one accounts.
"""

import argparse
import atexit
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
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from score_core.config.parsing import Config, load_config, load_runtime
from score_core.config.runtime import Runtime
from score_core.errors import Stopped, UserError
from score_core.files import check_writable, write_json
from tasks.runner.lock import exclusive
from tasks.runner.processes import end_with_parent

log = logging.getLogger(__name__)
RUNS = Path(".runs")
ENDING = "SCORE_ENDING"  # where one of many processes leaves the exit code for the one that started them
# For libraries that read it when they are loaded, which is later than this.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "passive",  # waiting threads sleep: steadier times where others use the cores too
    "TOKENIZERS_PARALLELISM": "false",
}
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "pandas", "pyarrow")


def run_stage(
    stage: str,
    run: Callable[[Config, Runtime], None],
    outputs: Sequence[Path] = (),
    launched: Callable[[str, list[str], Config, Runtime], Runtime] | None = None,
) -> None:
    """Runs a stage as a command line, and exits with a message in place of a traceback where it can.

    Args:
        stage: its name in dvc.yaml.
        run: does the work; its module's docstring is what --help says.
        outputs: what it writes; all must be writable before it starts.
        launched: of a stage that can run as many processes, `tasks.runner.launch.launched`.
    """
    arguments = _arguments(stage, sys.modules[run.__module__].__doc__ or "")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    end_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        config, runtime = load_config(arguments.params), load_runtime(arguments.runtime)
        logging.basicConfig(
            # Of a machine's processes one speaks, and the others where something is wrong.
            level="ERROR" if os.environ.get("LOCAL_RANK", "0") != "0" else runtime.log_level.upper(),
            format=f"%(asctime)s {stage} %(levelname)s %(message)s",
            datefmt="%H:%M:%S",
        )
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|transformers)\.")
        for library in ("httpx", "matplotlib", "fsspec", "urllib3"):
            logging.getLogger(library).setLevel(logging.WARNING)
        # Where there is no GPU it says so whenever it is imported, used or not.
        logging.getLogger("DeepSpeed").addFilter(lambda line: "accelerator to CPU" not in line.getMessage())
        manifest = RUNS / stage / "manifest.json"
        for output in (*outputs, manifest) if _is_first() else ():
            check_writable(output)
        with _alone(stage, runtime, accelerated=launched is not None):
            if launched is not None:
                files = ["--params", str(arguments.params), "--runtime", str(arguments.runtime)]
                runtime = launched(stage, files, config, runtime)
            run(config, runtime)
            account = _account(started, time.monotonic() - clock, arguments.params, runtime)
            if _is_first():
                write_json(manifest, account)
                _print_summary(account)
    except UserError as error:
        _end(2, f"error: {error}")
    except Stopped as stopped:
        _end(os.EX_TEMPFAIL, f"{stage}: {stopped}; the same command goes on from there")
    except KeyboardInterrupt:
        _end(130, f"{stage}: interrupted; the same command starts it again")
    except SystemExit as error:
        _end(error.code if isinstance(error.code, int) else 1)
    except Exception as error:
        if not _lost_peer(error):
            raise
        log.debug("", exc_info=error)
        _end(
            os.EX_TEMPFAIL,
            f"{stage}: another process of this run has ended or cannot be reached, so this one ends too; "
            "what it said stands above or in its machine's log; the same command, on every machine, "
            f"starts it again ({' '.join(str(error).split())[:200]})",
        )
    else:
        if ENDING in os.environ:
            _leave()


def _alone(stage: str, runtime: Runtime, accelerated: bool) -> AbstractContextManager[None]:
    """The locks of a stage; those of many processes are held by what has started them on the machine."""
    if ENDING in os.environ or (accelerated and runtime.launch.through is not None):
        return nullcontext()
    # Machines that run a stage together may share the checkout, and the first one's lock is enough.
    together = accelerated and runtime.launch.machine_rank > 0
    return exclusive(stage, None if together else RUNS / stage, accelerated)


def _end(code: int, message: str | None = None) -> None:
    """Exits; of many processes the first to end speaks, and leaves `code` for the one that started them."""
    if ENDING in os.environ:
        try:
            with open(os.environ[ENDING], "x") as file:  # noqa: PTH123
                file.write(str(code))
        except FileExistsError:
            message = None
    if message is not None:
        print(message, file=sys.stderr, flush=True)
    if ENDING in os.environ:
        _leave()
    sys.exit(code)


def _leave() -> NoReturn:
    """Ends one of many processes, whose work is done, without the interpreter's own end.

    There a thread of torch's that still wants the interpreter now and then aborts the process, and the
    launcher takes a finished stage for a failed one.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


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


def _account(started: datetime, seconds: float, params: Path, runtime: Runtime) -> dict[str, Any]:
    """What varies from run to run, and so is no output of a stage; every process must call."""
    peaks = _peaks()
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        # Of the process that took most.
        "peak_memory_bytes": max(cpu for cpu, _ in peaks),
        "peak_gpu_memory_bytes": max(gpu for _, gpu in peaks),
        "processes": len(peaks),
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


def _peaks() -> list[tuple[int, int]]:
    """The most CPU and GPU memory that each process has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    torch = sys.modules.get("torch")
    gpu = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    peaks = [(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, gpu)]
    if torch and torch.distributed.is_initialized():
        mine, peaks = peaks[0], [(0, 0)] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(peaks, mine)
        torch.distributed.destroy_process_group()
    return peaks


def _print_summary(account: dict[str, Any]) -> None:
    gpu = account["peak_gpu_memory_bytes"]
    log.info(
        "done in %.1f s by %d process%s; most memory in one: %.2f GB%s",
        account["seconds"],
        account["processes"],
        "" if account["processes"] == 1 else "es",
        account["peak_memory_bytes"] / 1e9,
        f", {gpu / 1e9:.2f} GB of its GPU's" if gpu else "",
    )


def _is_first() -> bool:
    """Whether this is the one of a run's processes that writes."""
    return ENDING not in os.environ or os.environ.get("RANK") == "0"


def _lost_peer(error: Exception) -> bool:
    """Whether `error` says that another process of the run is gone or cannot be reached."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_initialized():
        return False
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _commit() -> str | None:
    """The commit of the checkout, with `+` if tracked files differ from it; None outside of git."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        clean = subprocess.run(["git", "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("" if clean.returncode == 0 else "+")
