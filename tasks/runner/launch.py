"""From one command to many processes: a stage starts itself again through `accelerate launch`.

    stage  ->  accelerate launch --config_file launch/<strategy>.yaml ...  ->  the stage, once a process

Only where runtime.yaml asks for more than one process, or for a strategy that needs the launcher. With
`launch.through` the stage first starts itself on every machine, e.g. by `srun`.

A process that ends in a way that has a message and an exit code of its own leaves the code in a file
and ends with 0: the launcher would otherwise put its own traceback around it, and its own code 1 in
place. For one that is killed the launcher does (accelerate_launch.py). Signals go to the processes and not
to the launcher, which would kill them 30 s later.
"""

import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from score_core.config.parsing import LAUNCH_PREFIX, Config
from score_core.config.runtime import Launch, Runtime
from score_core.config.schema import Evaluation
from score_core.config.training import Training
from score_core.errors import UserError
from score_core.rollout.engines import engine_name
from tasks.runner.exits import ENDING
from tasks.runner.processes import Child

log = logging.getLogger(__name__)
CONFIGURATIONS = Path(__file__).resolve().parents[2] / "launch"
PATIENCE = 30  # seconds for the other processes to end, once one of them has


def launch(
    module: str,
    arguments: list[str],
    config: Config,
    runtime: Runtime,
    section: str | None,
    serve: Callable[[Runtime, int, bool], str],
) -> Runtime:
    """Returns what to run with in this process; where others do the work, ends with their exit code.

    Args:
        module: the command, e.g. `tasks.train`.
        arguments: all that follows it on the command line; the processes get the same.
        section: the section of params.yaml of a stage that trains; None for an evaluation, which has no
            use for split optimisers.
        serve: called where a server samples, with the number of attempts and whether the model verifies
            them; gives its address, having started it if need be.

    Raises:
        UserError: a combination of settings that cannot work.
    """
    sampling = sampling_of(config, section)
    engine = check_engine(config, runtime, section)
    unused = runtime.engine == "auto" and runtime.launch.sampler is not None and engine != "vllm"
    runtime = runtime.model_copy(update={"engine": engine})
    check_kernels(config, runtime)
    if ENDING in os.environ:
        return runtime
    if runtime.launch.through is not None:
        line = [*shlex.split(runtime.launch.through), sys.executable, "-m", module, *arguments]
        if shutil.which(line[0]) is None:
            raise UserError(f"runtime.yaml: launch.through: no command {line[0]} here; mend it, or use null.")
        sys.exit(_supervise(line, {f"{LAUNCH_PREFIX}THROUGH": "null"}, None))
    if unused:
        log.log(
            # Models may be evaluated by the built-in engine, whatever samples in training.
            logging.INFO if section is None else logging.WARNING,
            "launch.sampler: %s is not used: params.yaml: %s.sampling: %s takes the built-in engine; set any "
            "there, or launch.sampler: null",
            *(runtime.launch.sampler, section or "evaluation", sampling.sampling),
        )
    settings = launch_of(config, runtime.launch, section)
    if engine == "vllm":
        # Told apart here, since from here on the one that was started is an address like any other.
        beside = settings.sampler_beside or (settings.sampler == "start" and runtime.vllm.gpus is None)
        address = serve(runtime, sampling.attempts, sampling.verifies)
        settings = settings.model_copy(update={"sampler": address, "sampler_beside": beside})
    if settings.strategy != "single":
        mixed = section is not None and config.mixed_precision(settings.strategy)
        sys.exit(_on_this_machine(command(module, arguments, settings, mixed), settings))
    # The Trainer would take every GPU that it sees.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return runtime.model_copy(update={"launch": settings})


def sampling_of(config: Config, section: str | None) -> Evaluation | Training:
    """The settings by which a stage samples; `section` as in `launch`."""
    return config.evaluation if section is None else config.stage(section)


def check_engine(config: Config, runtime: Runtime, section: str | None) -> str:
    """The name of the engine that samples in a stage; `section` as in `launch`.

    Raises:
        UserError: there is none of that name, or it cannot be what the parameters ask for.
    """
    engine = engine_name(runtime, sampling_of(config, section).sampling, section or "evaluation")
    if engine == "vllm" and config.quantize:
        raise UserError(
            "runtime.yaml: engine: vllm is handed whole weights, and params.yaml: model.quantize: nf4 packs "
            "them; use quantize: null, or engine: builtin."
        )
    return engine


def launch_of(config: Config, launch: Launch, section: str | None) -> Launch:
    """What `resolve` makes of the settings for a stage; arguments and errors are those of `check_launch`."""
    settings = resolve(launch)
    if section is None:
        strategy = "ddp" if settings.world_size > 1 else "single"
        settings = settings.model_copy(update={"strategy": strategy})
    check_launch(config, settings, section)
    return settings


def visible_gpus() -> int:
    """How many GPUs torch would use; it takes seconds to load, so who need not know does not ask."""
    import torch

    return torch.cuda.device_count()


def resolve(launch: Launch) -> Launch:
    """The same with `auto` and nulls replaced by what this machine has."""
    gpus = visible_gpus()
    processes = 1 if launch.strategy == "single" else launch.processes or max(1, gpus)
    strategy = launch.strategy
    if strategy == "auto":
        strategy = "ddp" if processes * launch.machines > 1 else "single"
    return launch.model_copy(update={"strategy": strategy, "processes": processes})


def check_launch(config: Config, launch: Launch, section: str | None) -> None:
    """Refuses what cannot work, before anything is started.

    Args:
        launch: as `resolve` returns it.
        section: the section of params.yaml of a stage that trains; None for an evaluation, which runs as
            ddp or in one process.

    Raises:
        UserError: with the reason and the remedy.
    """
    gpus, total = visible_gpus(), launch.world_size
    where = f"runtime.yaml: launch.strategy: {launch.strategy}"
    if gpus and (launch.processes or 1) > gpus:
        raise UserError(
            f"runtime.yaml: launch.processes: {launch.processes} processes and {gpus} visible GPUs; each "
            "needs one of its own; lower it, or use null for all of them."
        )
    if launch.strategy == "ddp" and total == 1:
        raise UserError(f"{where} of one process is single; use single or auto, or more processes.")
    if launch.strategy == "fsdp2" and not gpus:
        raise UserError(f"{where} needs GPUs and none is visible; on CPUs use ddp, zero2 or zero3.")
    if launch.strategy.startswith("zero") and find_spec("deepspeed") is None:
        raise UserError(f"{where} needs deepspeed, which is not installed; `make setup` installs it.")
    if launch.strategy.startswith("zero") and config.dtype == "bfloat16" and not gpus:
        raise UserError(
            f"{where} with model.dtype: bfloat16 needs GPUs and none is visible; on CPUs use ddp, or float32."
        )
    packed = "params.yaml: model.quantize: nf4"
    if config.quantize and launch.strategy in ("zero3", "fsdp2"):
        raise UserError(
            f"{packed}: 4-bit weights are not split by {launch.strategy}; they are a quarter of the size, so "
            "use ddp or zero2, which hold all of them on every GPU."
        )
    if config.quantize and find_spec("bitsandbytes") is None:
        remedy = "`pip install -r requirements-4bit.txt`, or quantize: null"
        raise UserError(f"{packed}: bitsandbytes is not installed; {remedy}.")
    if config.quantize and not gpus:
        raise UserError(f"{packed}: 4-bit weights need a GPU and none is visible; use quantize: null.")
    if section is None:
        return
    prompts = config.stage(section).prompts_per_step
    if prompts % total:
        raise UserError(
            f"params.yaml: {section}: prompts_per_step: {prompts} is not divisible by the {total} processes "
            "of runtime.yaml, which share a step's problems evenly; use another number of processes "
            f"({', '.join(str(n) for n in range(1, prompts + 1) if prompts % n == 0)})."
        )


def check_kernels(config: Config, runtime: Runtime) -> None:
    """Refuses kernels that this machine or this precision has none of.

    Raises:
        UserError: with the remedy.
    """
    flash = runtime.attention == "flash_attention_2"
    wants = {
        f"attention: {runtime.attention}": flash,
        "fused_kernels: liger": runtime.fused_kernels == "liger",
    }
    for setting in [setting for setting, wanted in wants.items() if wanted]:
        if visible_gpus() == 0:
            instead = "attention: auto" if flash else "fused_kernels: none"
            raise UserError(f"runtime.yaml: {setting} needs a GPU and none is visible; use {instead}.")
    if flash and config.dtype != "bfloat16":
        raise UserError(
            "runtime.yaml: attention: flash_attention_2 computes in bfloat16, and params.yaml: model.dtype "
            f"is {config.dtype}; use attention: auto."
        )


def command(module: str, arguments: list[str], launch: Launch, mixed: bool = False) -> list[str]:
    """The long command line that the user never types; `mixed`: see `Config.mixed_precision`."""
    line = [
        sys.executable, "-m", "tasks.runner.accelerate_launch",
        "--config_file", str(CONFIGURATIONS / f"{launch.strategy}.yaml"),
        "--num_processes", str(launch.world_size),
        "--num_machines", str(launch.machines),
        "--machine_rank", str(launch.machine_rank),
        "--main_process_ip", launch.main_address,
        "--main_process_port", str(launch.main_port),
        "--mixed_precision", "bf16" if mixed else "no",
        "--dynamo_backend", "no",
    ]  # fmt: skip
    if launch.offload and launch.strategy == "fsdp2":
        line += ["--fsdp_offload_params", "true"]
    elif launch.offload:
        line += ["--offload_optimizer_device", "cpu"]
        line += ["--offload_param_device", "cpu"] if launch.strategy == "zero3" else []
    return [*line, "--module", module, *arguments]


def _on_this_machine(line: list[str], launch: Launch) -> int:
    # What was resolved here holds for every process.
    resolved = {"STRATEGY": launch.strategy, "PROCESSES": str(launch.processes)}
    if launch.sampler is not None:
        resolved |= {"SAMPLER": launch.sampler, "SAMPLER_BESIDE": str(launch.sampler_beside).lower()}
    environment = {f"{LAUNCH_PREFIX}{key}": value for key, value in resolved.items()}
    with tempfile.TemporaryDirectory(prefix="score-") as folder:
        ending = Path(folder) / "code"
        code = _supervise(line, {**environment, ENDING: str(ending)}, ending)
        return int(ending.read_text()) if ending.exists() else code


def _supervise(line: list[str], environment: dict[str, str], ending: Path | None) -> int:
    """Runs a command to its end and forwards signals; returns its exit code.

    Args:
        ending: where the first process to end with a code of its own leaves it; None if `line` is not
            the launcher, and gets the signals itself.
    """
    log.info("%s", shlex.join(line))
    received = 0
    # By SIGTERM, since one SIGINT does not end srun.
    with Child(line, {**os.environ, **environment}, stop_signal=signal.SIGTERM) as child:
        while True:
            try:
                while (code := child.process.poll()) is None:
                    time.sleep(0.1)
                    if ending is not None and ending.exists():
                        _end_launcher(child, since=ending.stat().st_mtime)
                return 128 + received if received else 1 if code < 0 else code
            except (KeyboardInterrupt, SystemExit) as asked:
                interrupted = isinstance(asked, KeyboardInterrupt)
                received = signal.SIGINT if interrupted else int(asked.code or 0) - 128
                _forward(child, received, to_processes=ending is not None)


def _end_launcher(child: Child, since: float) -> None:
    """Ends a launcher that waits, once one of its processes has ended with a code of its own."""
    launcher, processes = _tree(child)
    with suppress(psutil.NoSuchProcess):
        if launcher and not processes:
            launcher.kill()  # it waits minutes for other machines' launchers, and has nothing left to do
        elif launcher and time.time() > since + PATIENCE:
            launcher.terminate()  # and with it the processes that wait for the one that has ended


def _forward(child: Child, number: int, to_processes: bool) -> None:
    launcher, processes = _tree(child)
    if launcher is None:
        child.stop()  # it has started nothing yet
    for receiver in processes if processes and to_processes else filter(None, [launcher]):
        with suppress(psutil.NoSuchProcess):
            receiver.send_signal(number)


def _tree(child: Child) -> tuple[psutil.Process | None, list[psutil.Process]]:
    """What runs below the watchdog, and its processes; neither if it has just ended."""
    with suppress(psutil.NoSuchProcess):
        for launcher in psutil.Process(child.process.pid).children():
            return launcher, launcher.children()
    return None, []
