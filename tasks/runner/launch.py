"""From one command to many processes: a stage starts itself again through `accelerate launch`.

    stage  ->  accelerate launch --config_file launch/<strategy>.yaml ...  ->  the stage, once a process

Only where runtime.yaml asks for more than one process, or for a strategy that needs the launcher. With
`launch.through` the stage first starts itself on every machine, e.g. by `srun`.

A process that ends in a way that has a message and an exit code of its own leaves the code in a file
and ends with 0: the launcher would otherwise put its own traceback around it, and its own code 1 in
place. Signals go to the processes and not to the launcher, which would kill them 30 s later.
"""

import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from score_core.config.parsing import LAUNCH_PREFIX, Config
from score_core.config.runtime import Launch, Runtime
from tasks.runner.command_line import ENDING, end_with_parent

log = logging.getLogger(__name__)
CONFIGURATIONS = Path(__file__).resolve().parents[2] / "launch"
PATIENCE = 30  # seconds for the other processes to end, once one of them has


def launched(stage: str, files: list[str], config: Config, runtime: Runtime, trains: str | None) -> Runtime:
    """Returns what to run with in this process; where others do the work, ends with their exit code.

    Args:
        files: the stage's command line arguments.
        trains: the parameters' section of a stage that trains; None for an evaluation, which has no
            use for split optimisers.

    Raises:
        UserError: a combination of settings that cannot work.
    """
    if ENDING in os.environ:
        return runtime
    if runtime.launch.through is not None:
        sys.exit(_on_every_machine(stage, files, runtime.launch.through))
    from score_core.distributed import check_launch, resolve, world_of

    launch = resolve(runtime.launch)
    if trains is None:
        launch = launch.model_copy(update={"strategy": "ddp" if world_of(launch) > 1 else "single"})
    check_launch(config, launch, trains)
    if launch.strategy != "single":
        sys.exit(_on_this_machine(stage, files, launch))
    # The Trainer would take every GPU that it sees.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return runtime.model_copy(update={"launch": launch})


def command(module: str, arguments: list[str], launch: Launch) -> list[str]:
    """The long command line that the user never types."""
    total = (launch.processes or 1) * launch.machines
    line = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", str(CONFIGURATIONS / f"{launch.strategy}.yaml"),
        "--num_processes", str(total),
        "--num_machines", str(launch.machines),
        "--machine_rank", str(launch.machine_rank),
        "--main_process_ip", launch.main_address,
        "--main_process_port", str(launch.main_port),
        "--mixed_precision", launch.mixed_precision or "no",
        "--dynamo_backend", "no",
    ]  # fmt: skip
    if launch.offload and launch.strategy == "fsdp2":
        line += ["--fsdp_offload_params", "true"]
    elif launch.offload:
        line += ["--offload_optimizer_device", "cpu"]
        line += ["--offload_param_device", "cpu"] if launch.strategy == "zero3" else []
    return [*line, "--module", module, *arguments]


def _on_every_machine(stage: str, files: list[str], through: str) -> int:
    line = [*shlex.split(through), sys.executable, "-m", f"tasks.{stage}", *files]
    log.info("%s", shlex.join(line))
    return _supervise(line, {f"{LAUNCH_PREFIX}THROUGH": "null"}, None)


def _on_this_machine(stage: str, files: list[str], launch: Launch) -> int:
    line = command(f"tasks.{stage}", files, launch)
    log.info("%s", shlex.join(line))
    # What was resolved here holds for every process.
    settled = {
        f"{LAUNCH_PREFIX}{key.upper()}": str(getattr(launch, key)) for key in ("strategy", "processes")
    }
    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        ending = Path(folder) / "code"
        code = _supervise(line, {**settled, ENDING: str(ending)}, ending)
        return int(ending.read_text()) if ending.exists() else code


def _supervise(line: list[str], environment: dict[str, str], ending: Path | None) -> int:
    """Runs a command to its end, handing on signals; returns its exit code."""
    process = subprocess.Popen(
        line,
        env={**os.environ, **environment},
        # Of its own, so that Ctrl-C reaches it once and by way of us.
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    signalled = 0
    while True:
        try:
            while (code := process.poll()) is None:
                time.sleep(0.1)
                if ending is not None and ending.exists():
                    _hurry(process, since=ending.stat().st_mtime)
            return 128 + signalled if signalled else 1 if code < 0 else code
        except (KeyboardInterrupt, SystemExit) as asked:
            signalled = signal.SIGINT if isinstance(asked, KeyboardInterrupt) else int(asked.code or 0) - 128
            _hand_on(process, signalled, to_children=ending is not None)


def _hurry(launcher: subprocess.Popen[bytes], since: float) -> None:
    """Ends a launcher that waits, once one of its processes has ended with a code of its own."""
    if not _children(launcher):
        launcher.kill()  # it waits minutes for other machines' launchers, and has nothing left to do
    elif time.time() > since + PATIENCE:
        launcher.terminate()  # and with it the processes that wait for the one that has ended


def _hand_on(launcher: subprocess.Popen[bytes], number: int, to_children: bool) -> None:
    for receiver in (_children(launcher) if to_children else []) or [launcher]:
        with suppress(psutil.NoSuchProcess):
            receiver.send_signal(number)


def _children(launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(launcher.pid).children()
    except psutil.NoSuchProcess:
        return []  # it has just ended by itself
