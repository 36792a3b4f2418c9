"""A vLLM server as a child process, in an environment of its own.

    stage (or what starts its processes)  ->  watchdog  ->  .venv-vllm/bin/python -m vllm...  ->  its workers

It is started without weights, which the first hand-over brings, and for dialogues of the stage's length. Its
development routes take weights from anybody: it listens on this machine alone, or where several share it on
the address by which they reach the first, which must be on a private network.
"""

import logging
import os
import shlex
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import torch

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.files import read_json
from score_core.models.folders import ADAPTER_CONFIG, base_of
from score_core.models.handover import write_config
from score_core.rollout.conversation import load_conversation
from score_core.rollout.engines.handover_check import LENGTH
from score_core.rollout.self_judge import make_self_judge
from tasks.runner.processes import Child

log = logging.getLogger(__name__)
GRACE = 10.0  # seconds for it to end: it has nothing to save
# Its workers each bind themselves to cores, all to the same ones.
SILENT = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
# For ranks up to these it makes room.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
TAKING_ADAPTERS = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
ON_CPUS = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@contextmanager
def sampler(
    config: Config, runtime: Runtime, model: Path, attempts: int, folder: Path, verifies: bool = False
) -> Iterator[str]:
    """The address of the server that runtime.yaml asks for; one that is started here ends with the block.

    Args:
        model: the folder of what is to be sampled from, or one of the same base.
        attempts: of a dialogue.
        folder: where its log goes, as `server.log`.
        verifies: whether the model judges them.

    Raises:
        UserError: it cannot be started.
    """
    launch = runtime.launch
    if launch.sampler != "start":
        yield str(launch.sampler)
        return
    host = launch.main_address if launch.machines > 1 else "127.0.0.1"
    port = runtime.vllm.port or _free_port()
    address = f"http://{host}:{port}"
    if launch.machine_rank > 0:
        _wait(address, runtime.vllm.timeout, None, folder / "server.log")
        yield address
        return
    base = base_of(model)
    longest = longest_asked(config, base, attempts, verifies)
    rank = adapter_rank(config, model)
    with serving(base, config.dtype, longest, rank, runtime, host, port, folder / "server.log"):
        yield address


def adapter_rank(config: Config, model: Path) -> int:
    """The largest rank of the adapters that are trained, or that the folder `model` holds; 0 without any."""
    trained = 0 if config.lora is None else config.lora.rank
    file = model / ADAPTER_CONFIG
    return max(trained, int(read_json(file, "train_stage1", ["r"])["r"]) if file.exists() else 0)


def longest_asked(config: Config, base: Path, attempts: int, verifies: bool) -> int:
    """Tokens of the longest text that a server has to hold: a dialogue's, or a self-judge's game's.

    Args:
        base: the folder of a whole model.
        attempts: of a dialogue.
        verifies: whether the model judges them.
    """
    attempts = max(2, attempts)  # validation asks for a correction, also under a method of one attempt
    conversation = load_conversation(base, config.conversation, attempts, verifies=verifies)
    evaluated = conversation.limited(config.evaluated_conversation.max_new_tokens)
    judge = make_self_judge(config, conversation, base, attempts)
    games = 0 if judge is None else judge.longest
    return max(conversation.longest(attempts), evaluated.longest(attempts), games, LENGTH)


@contextmanager
def serving(
    base: Path,
    dtype: str,
    longest: int,
    rank: int,
    runtime: Runtime,
    host: str,
    port: int,
    record: Path | None,
) -> Iterator[Child]:
    """A server for models like the one in `base`, which ends with the block.

    Args:
        longest: most tokens of a dialogue.
        rank: the largest of adapters that it is to take beside the weights; 0 for none.
        record: the file that its output goes to; None shows it.

    Raises:
        UserError: it does not come up.
    """
    settings = runtime.vllm
    python = shutil.which(settings.python)
    if python is None:
        raise UserError(
            f"runtime.yaml: vllm.python: {settings.python} not found; run `make vllm`, which sets up the "
            "server's environment, or name the Python of one that has vLLM."
        )
    on_cpus = torch.cuda.device_count() == 0
    environment = {**os.environ, **SILENT, **(ON_CPUS if on_cpus else {})}
    if on_cpus:
        environment["OMP_NUM_THREADS"] = str(runtime.threads)
    room = next((size for size in RANKS if 0 < rank <= size), None)
    if room is not None:
        environment |= TAKING_ADAPTERS
    if settings.gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = settings.gpus
    with tempfile.TemporaryDirectory(prefix="score-vllm-") as name:
        write_config(base, Path(name))
        line = [
            python, "-m", "vllm.entrypoints.openai.api_server",
            "--model", name,
            "--served-model-name", "policy",
            "--load-format", "dummy",
            "--skip-tokenizer-init",
            "--generation-config", "vllm",
            "--logprobs-mode", "processed_logprobs",
            "--host", host,
            "--port", str(port),
            "--dtype", dtype,
            "--max-model-len", str(longest),
            "--tensor-parallel-size", str(settings.tensor_parallel),
            "--gpu-memory-utilization", str(settings.memory),
            *(["--enable-lora", "--max-lora-rank", str(room)] if room is not None else []),
            # Of a prompt that it reads in parts it turns a seeded generator back, which one of a CPU cannot.
            *(["--enforce-eager", "--no-enable-chunked-prefill"] if on_cpus else []),
            *shlex.split(settings.arguments),
        ]  # fmt: skip
        log.info("%s", shlex.join(line))
        began = time.monotonic()
        with _output(record) as output:
            child = Child(line, environment, stop_signal=signal.SIGTERM, grace=GRACE, stdout=output)
        with child:
            _wait(f"http://{host}:{port}", settings.timeout, child, record)
            log.info("the server is up after %.0f s", time.monotonic() - began)
            yield child


@contextmanager
def _output(record: Path | None) -> Iterator[int | None]:
    if record is None:
        yield None
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("wb") as file:
        yield file.fileno()


def _wait(address: str, patience: float, child: Child | None, record: Path | None) -> None:
    """Waits until the server answers; refuses to if it ends, or for too long."""
    until = time.monotonic() + patience
    while child is None or child.process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{address}/health", timeout=5, trust_env=False).is_success:
                return
        if time.monotonic() > until:
            raise UserError(
                f"launch.sampler: no server at {address} after {patience:g} s; look into {record}, or raise "
                "vllm.timeout in runtime.yaml."
            )
        time.sleep(0.2)
    raise UserError(f"launch.sampler: the server has ended instead of starting{_last_error(record)}.")


def _last_error(record: Path | None) -> str:
    """What its log gives as the reason, and where that is."""
    if record is None:
        return "; it says above why"
    lines = record.read_text("utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if "Error" in line and "Engine core init" not in line]
    return f" ({errors[0][:200]}); see {record}" if errors else f"; see {record}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
