"""What every stage's command line does around its work: read, check, run, account.

    python -m tasks.<command> ... [--params FILE] [--runtime FILE] [--set KEY=VALUE]...

How it ends is in exits.py. A stage may run as many processes (launch.py): each runs all of this, and the
first one writes.
"""

import argparse
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from score_core.config.parsing import load_config, load_runtime
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.files import check_writable
from tasks.runner.exits import ENDING, exit_code, is_first, leave, parser_of
from tasks.runner.lock import exclusive
from tasks.runner.manifest import write_manifest
from tasks.runner.processes import end_with_parent

RUNS = Path(".runs")
# For libraries that read it when they are loaded, which is later than this. What the user sets stands.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "passive",  # waiting threads sleep: spinning ones starve each other on a busy machine
    "TOKENIZERS_PARALLELISM": "false",
}
# Kernels that every x86-64 processor with AVX2 has, in place of the best ones of this processor: sums in
# another order end in other bits, and a policy's samples amplify them. MKL's AVX2 is Intel's alone.
KERNELS = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}
Given = argparse.Namespace


def run_stage(
    command: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    outputs: Callable[[Given], Sequence[Path]],
    run: Callable[[Given, Config, Runtime], None],
    section: Callable[[Given], str | None] | None = None,
    model: Callable[[Given], Path] | None = None,
) -> None:
    """Runs a stage as a command line, and exits.

    Args:
        command: the name of its module in tasks/.
        add_arguments: adds the command's own arguments; one called `--name` names the run as well.
        outputs: what it writes; all must be writable before it starts.
        run: does the work; its module's docstring is what --help says.
        section: of a stage that uses accelerators and can run as many processes: the section of the
            parameters that it trains by, or None if it only evaluates.
        model: of such a stage: the folder of the model that it samples from, or of one like it.
    """
    parser = parser_of(f"tasks.{command}", sys.modules[run.__module__].__doc__)
    add_arguments(parser)
    add_configuration(parser)
    given = parser.parse_args()
    stage = run_folder(command, given).name
    end_with_parent()
    signal.signal(signal.SIGTERM, _terminate)

    def work() -> None:
        started, manifest = time.time(), RUNS / stage / "manifest.json"
        config, runtime = read_configuration(given)
        for name, value in (ENVIRONMENT | _kernels(config)).items():
            os.environ.setdefault(name, value)
        _set_up_logging(stage, runtime)
        for output in (*outputs(given), manifest) if is_first() else ():
            check_writable(output)
        with _locks(stage, runtime, accelerated=section is not None), ExitStack() as running:
            if section is not None and model is not None:
                from tasks.runner.launch import launch

                def serve(runtime: Runtime, attempts: int, verifies: bool) -> str:
                    from tasks.runner.sampler import sampler

                    server = sampler(config, runtime, model(given), attempts, manifest.parent, verifies)
                    return running.enter_context(server)

                runtime = launch(f"tasks.{command}", sys.argv[1:], config, runtime, section(given), serve)
            run(given, config, runtime)
            write_manifest(manifest, given, runtime, started)

    code = exit_code(stage, work)
    if ENDING in os.environ:
        leave()
    sys.exit(code)


def run_folder(command: str, given: Given) -> Path:
    """What a stage keeps for itself: lock, log, checkpoints, manifest. One a command and name."""
    return RUNS / "_".join(filter(None, [command, getattr(given, "name", None)]))


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what to compute and how to run it."""
    shared = parser.add_argument_group("configuration")
    for name, what in (("params", "what to compute"), ("runtime", "how to run it")):
        file = Path(f"{name}.yaml")
        shared.add_argument(f"--{name}", type=Path, default=file, metavar="FILE", help=f"{what} ({file})")
    shared.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value in place of the one in --params, e.g. stage2.alpha=0; may be repeated",
    )


def read_configuration(given: Given) -> tuple[Config, Runtime]:
    """What `add_configuration`'s arguments name.

    Raises:
        UserError: a file is missing, or a value is wrong.
    """
    from score_core.algorithms import SETTINGS

    return load_config(given.params, SETTINGS, given.set), load_runtime(given.runtime)


def in_one_process(runtime: Runtime) -> Runtime:
    """The same for commands that load a model where they are: no stage, so nothing starts them as many.

    Nor do they start a server, for the few problems that they ask.
    """
    alone = {"strategy": "single", "processes": 1, "machines": 1, "machine_rank": 0, "offload": False}
    launch = runtime.launch.model_copy(update=alone)
    return runtime.model_copy(update={"engine": "builtin", "launch": launch})


def run_name(text: str) -> str:
    """An argument that names a run and thereby its folder."""
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(f"expected letters, digits, dots and dashes, found {text!r}")
    return text


def _kernels(config: Config) -> dict[str, str]:
    """`KERNELS` for the embedded model, whose results are committed; real ones take the fastest."""
    processor = Path("/proc/cpuinfo")
    known = processor.exists() and " avx2 " in processor.read_text()
    return KERNELS if known and config.model.source == "addition" else {}


def _locks(stage: str, runtime: Runtime, accelerated: bool) -> AbstractContextManager[None]:
    # Those of many processes are held by what has started them on the machine.
    above = ENDING in os.environ or (accelerated and runtime.launch.through is not None)
    # Machines that run a stage together may share the checkout, and the first one's lock is enough.
    together = accelerated and runtime.launch.machine_rank > 0
    return exclusive(stage, None if above or together else RUNS / stage, accelerated and not above)


def _set_up_logging(stage: str, runtime: Runtime) -> None:
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


def _terminate(number: int, frame: object) -> None:
    # An exception, and not the end there and then, so that temporary files are removed.
    raise SystemExit(128 + number)
