"""How a stage runs on a machine: the settings of `runtime.yaml`. None invalidates a cached result."""

import shlex
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from score_core.config.section import Count, Natural, Positive, Section
from score_core.config.training import Sampling

Processes = Annotated[int, Field(ge=1, le=1024)]  # or threads: more than a machine has end it
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: any free one, on one machine only


class Launch(Section):
    """On which processes training and evaluation run, and how these share the work.

    On a machine that differs from the others in a value, `SCORE_LAUNCH_<KEY>` in the environment takes
    its place, e.g. `SCORE_LAUNCH_MACHINE_RANK=1`.
    """

    # auto: every visible GPU (ddp), or one process where there is at most one.
    # ddp: a whole model a process; zero2: gradients and optimiser split over the processes; zero3 and
    # fsdp2: the weights too, gathered for sampling.
    strategy: Literal["auto", "single", "ddp", "zero2", "zero3", "fsdp2"]
    processes: Processes | None  # on each machine; null: one a visible GPU, or one without any
    machines: Count
    machine_rank: Natural  # which of the machines this is; 0 writes the outputs
    main_address: str  # of the machine with rank 0, as all the others reach it
    main_port: Port
    through: str | None  # a command that runs what follows it on every machine, e.g. srun's
    # A vLLM server to sample with: `start` has each stage start one (section `vllm`) and stop it at its end;
    # an address, http://HOST:PORT, is that of a standing one; null: none.
    sampler: str | None
    # Whether a standing server is on the stages' own GPUs, so that `auto` leaves it `vllm.memory` of each; of
    # one that a stage starts it is known.
    sampler_beside: bool
    offload: bool  # zero2: optimiser in CPU memory; zero3 and fsdp2: weights too
    gradient_checkpointing: bool  # recompute activations: a third more time for less memory

    @model_validator(mode="after")
    def _parts_fit(self) -> "Launch":
        if self.machine_rank >= self.machines:
            raise ValueError(
                f"machine_rank: {self.machine_rank} of machines: {self.machines}; ranks start at 0"
            )
        if self.machines > 1 and (self.main_port == 0 or self.main_address in ("127.0.0.1", "localhost")):
            raise ValueError(
                "machines: more than one need a main_address that all of them reach, and a main_port "
                "that is free on it; set both"
            )
        if self.strategy == "single" and ((self.processes or 1) > 1 or self.machines > 1):
            raise ValueError("strategy: single is one process; use ddp, zero2, zero3 or fsdp2 for more")
        if self.offload and self.strategy in ("auto", "single", "ddp"):
            raise ValueError(
                f"offload: {self.strategy} keeps everything on the accelerator; use zero2, zero3 or fsdp2"
            )
        return self

    @field_validator("through")
    @classmethod
    def _through_is_a_command(cls, line: str | None) -> str | None:
        if line is not None and not shlex.split(line):
            raise ValueError("expected a command such as srun, or null")
        return line

    @field_validator("sampler")
    @classmethod
    def _sampler_is_an_address(cls, sampler: str | None) -> str | None:
        if sampler in (None, "start"):
            return sampler
        found = urlsplit(str(sampler))
        if found.scheme not in ("http", "https") or not found.hostname or found.path.strip("/"):
            raise ValueError("expected start, null, or an address such as http://127.0.0.1:8000")
        return str(sampler).rstrip("/")

    @property
    def world_size(self) -> int:
        """The number of processes on all machines together."""
        return (self.processes or 1) * self.machines


class Checkpointing(Section):
    """How training saves itself, to go on after an interruption (`score_core/checkpointing/`)."""

    # Saves at the end of the first step after so long; later where it would take over a tenth of the time.
    every_seconds: Positive
    keep: Count  # the newest ones; the best step's is kept beside them
    # Checkpoints of interrupted runs with other parameters, in case those come back.
    keep_runs: Natural
    keep_days: Positive


class Vllm(Section):
    """The server that `launch.sampler: start` starts, and how weights reach this or a standing one."""

    python: str  # of the environment that has vLLM; `make vllm` makes one
    port: Port
    gpus: str | None  # that it sees, as CUDA_VISIBLE_DEVICES has them, e.g. "6,7"; null: the stage's own
    tensor_parallel: Count  # GPUs that share the model
    memory: Annotated[float, Field(gt=0, lt=1)]  # share of its GPUs' memory; of the machine's without GPUs
    arguments: str  # more of the server's own command line
    # Where a step's weights are handed over; null: /dev/shm. A server on another machine needs a folder that
    # both see under this path.
    weights: str | None
    timeout: Positive  # seconds for it to start, and for one request, its waiting included


class Runtime(Section):
    """All of `runtime.yaml`."""

    threads: Processes  # CPU threads a process; results are bit-identical for the same number
    # Tokens in one forward and backward of training, padding included, and trajectories sampled side by
    # side; auto: what fits the GPU (score_core/models/memory.py), and fixed sizes on a CPU.
    micro_batch_tokens: Count | Literal["auto"]
    sampling_batch_size: Count | Literal["auto"]
    # What samples: a key of score_core.rollout.engines.ENGINES; auto: builtin, or vllm where launch.sampler
    # names a server and the parameters allow any sampling.
    engine: str
    # What computes attention, in sampling, training and evaluation alike; equal but for rounding.
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    fused_kernels: Literal["none", "liger"]  # score_core/models/kernels.py
    checkpoints: Checkpointing
    tracker: Literal["none", "tensorboard", "wandb"]  # local files are always written
    log_level: Literal["debug", "info", "warning"]
    launch: Launch
    vllm: Vllm

    def engine_for(self, sampling: Sampling) -> str:
        """The name of the engine that samples where `sampling` is asked for."""
        if self.engine != "auto":
            return self.engine
        return "vllm" if sampling == "any" and self.launch.sampler is not None else "builtin"

    @model_validator(mode="after")
    def _server_is_named(self) -> "Runtime":
        if self.engine == "vllm" and self.launch.sampler is None:
            raise ValueError(
                "engine: vllm samples with a server and launch.sampler names none; set it to start, or to a "
                "standing server's address"
            )
        if self.launch.sampler == "start" and self.launch.machines > 1 and self.vllm.port == 0:
            raise ValueError(
                "vllm.port: all machines have to know it; set one that is free on the first machine, or set "
                "launch.sampler to a standing server's address"
            )
        return self

    @model_validator(mode="after")
    def _kernels_are_installed(self) -> "Runtime":
        wanted = {
            "attention: flash_attention_2": ("flash_attn", "flash-attn", "auto"),
            "fused_kernels: liger": ("liger_kernel", "liger-kernel", "none"),
        }
        for setting, (module, package, instead) in wanted.items():
            key, value = setting.split(": ")
            if getattr(self, key) == value and find_spec(module) is None:
                raise ValueError(f"{setting} is not installed; `pip install {package}`, or set {instead}")
        return self

    @model_validator(mode="after")
    def _tracker_is_installed(self) -> "Runtime":
        if self.tracker != "none" and find_spec(self.tracker) is None:
            raise ValueError(
                f"tracker: {self.tracker} is not installed; `pip install {self.tracker}`, or set none "
                "(the files in metrics/ are written either way)"
            )
        return self
