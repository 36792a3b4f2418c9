"""One of the processes that train in tests; `accelerate launch` starts it as a module.

    python -m tests.rank RUN WORK KIND...     (two-digit sums in RUN, see tests/small_run.py)
    python -m tests.rank RUN WORK methods | poisoned

A start costs several seconds, so one makes many runs. The strategy comes from the environment, as it does to
a stage's processes; so does the address of a sampling server.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from score_core.config.runtime import Launch, Runtime
from score_core.distributed import ZERO, rank, world
from score_core.errors import Stopped
from score_core.problems import read_problems
from score_core.rl import batches, logprobs, policy
from score_core.rl.batches import token_balanced
from score_core.rl.trainer import PolicyTrainer
from tasks.runner.exits import leave
from tests.small_run import (
    HALF,
    RUNTIME,
    SELF_JUDGE,
    digits_are_verdicts,
    evaluate,
    folders,
    in_micro_batches,
    small_config,
    train_stage,
)

KINDS: dict[str, dict[str, Any] | None] = {"full": None, "lora": {"rank": 4, "alpha": 8}}
# A few steps in bf16: of a model whose output layer has weights of its own, and of an adapter.
ROUNDED: dict[str, dict[str, Any] | None] = {"bf16": None, "lora-bf16": KINDS["lora"]}
# A few steps sampled by a server.
SERVED: dict[str, dict[str, Any] | None] = {"served": None, "lora-served": KINDS["lora"]}
# A few steps whose prompts are shared, in micro-batches that hold several dialogues of one, or do not.
SHARED: dict[str, dict[str, Any] | None] = {"shared": None}
# Those of `KINDS` in another folder, where the last process is told to stop in the third step.
STOPPED = "stopped"
# Every other method, for two steps: its section of params.yaml, and what it has there.
METHODS: dict[str, dict[str, Any]] = {
    "single_turn": {"baseline": "group_standardised"},
    "star": {"keep_right": True, "offline_first_attempts": 0.5},
    "pair_sft": {"keep_right": True},
    "stasc": {"iterations": 2, "filter": "non_decreasing", "offline_first_attempts": 1.0},
    "stage2": {"recombine": 1.5, "mend": 2.0},
    "pag": {"offline_first_attempts": 0.5},
    "sr_r1": {"baseline": "group_standardised", "parts": [2, 1], "of": 2},
}
JUDGED = "sr_r1"  # the one of them whose policy judges itself
STAGE = {
    "steps": 5,
    "learning_rate": 1e-3,
    "max_grad_norm": 0.5,  # below the norms that occur, so that clipping counts
    "offline_first_attempts": 0.2,  # in some steps for problems of one process only
    "beta1": 0.1,
    "validate_every": 5,
}


def train(run: Path, work: Path, launch: Launch, kinds: Sequence[str]) -> None:
    """Trains each kind, in several micro-batches and chunks, and evaluates if the first is among them."""
    logging.basicConfig(level="INFO")
    logprobs.CHUNK = 2**9  # about 30 tokens: micro-batches differ in the chunks that they need
    for kind in kinds:
        runtime = in_micro_batches(2 if kind in SHARED else 8).model_copy(update={"launch": launch})
        if kind == STOPPED:
            stop(run, work / STOPPED, runtime)
            continue
        target = folders(run, work, kind)
        config = small_config(stage2=STAGE, lora=KINDS.get(kind))
        if kind in ROUNDED:
            target = replace(target, start=run / "untied", reference=run / "untied")
            config = small_config(stage2=STAGE | {"steps": 2}, lora=ROUNDED[kind], model=HALF)
        if kind in SHARED:
            config = small_config(stage2=STAGE | {"steps": 2, "share_prompts": True})
        if kind in SERVED:
            config = small_config(stage2=STAGE | {"steps": 2, "sampling": "any"}, lora=SERVED[kind])
        with uneven() if kind in SHARED else nullcontext():
            train_stage("stage2", config, runtime, target)
    if "full" in kinds and launch.strategy in ("single", "ddp"):
        config = small_config(evaluation={"batch_size": 16})
        table = evaluate(work / "full", read_problems(run / "data", "test"), config, runtime)
        if rank() == 0:
            table.to_parquet(work / "table.parquet")


def stop(run: Path, work: Path, runtime: Runtime) -> None:
    """Trains each of `KINDS` until the third step, in which the last process gets a SIGTERM."""
    with spoiled_step(lambda loss: os.kill(os.getpid(), signal.SIGTERM), step=3):
        for kind, lora in KINDS.items():
            try:
                train_stage(
                    "stage2", small_config(stage2=STAGE, lora=lora), runtime, folders(run, work, kind)
                )
            except Stopped as stopped:
                logging.info("%s: %s", kind, stopped)


def train_methods(run: Path, work: Path, launch: Launch) -> None:
    """Trains each of `METHODS`, in several micro-batches."""
    runtime = in_micro_batches(16).model_copy(update={"launch": launch})
    for name, settings in METHODS.items():
        start = run / "verifying" if name == "pag" else run
        config = small_config(
            **{name: settings}, reward={"self_judge": SELF_JUDGE if name == JUDGED else None}
        )
        with digits_are_verdicts():
            train_stage(name, config, runtime, folders(start, work, name))


def pretend() -> None:
    """Lets accelerate take CPUs for what it uses FSDP and bf16 on, and DeepSpeed do without compiling."""
    import deepspeed
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from transformers import training_args

    if os.environ.get("ACCELERATE_TORCH_DEVICE") == "cpu":
        PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)  # type: ignore
    training_args.is_torch_bf16_gpu_available = lambda: True
    # ZeRO-3 would never release tensors as small as a small model's.
    ZERO["stage3_param_persistence_threshold"] = 0
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def count_split_layers() -> None:
    """Has each reference say how many of its layers FSDP2 has split on their own."""
    prepare_frozen = policy.prepare_frozen

    def counted(model: Any, *given: Any) -> Any:
        prepared = prepare_frozen(model, *given)
        split = sum(isinstance(layer, FSDPModule) for layer in model.get_decoder().layers)
        logging.getLogger(__name__).info("a reference of which %d layers are split", split)
        return prepared

    policy.prepare_frozen = counted


def tell_gradients() -> None:
    """Has each process say, before each micro-batch, how its strategy holds the gradients of those before."""
    compute_loss = PolicyTrainer.compute_loss

    def told(trainer: PolicyTrainer, *given: Any, **named: Any) -> torch.Tensor:
        engine = getattr(trainer.accelerator, "deepspeed_engine_wrapped", None)
        if engine is not None:
            logging.info("gradients are summed in %s", engine.engine.optimizer.gradient_accumulation_dtype)
            weights = list(engine.engine.module.parameters())
            released = [one for one in weights if hasattr(one, "ds_id") and one.numel() == 0]
            logging.info("of all weights released: %s", f"{len(released)} of {len(weights)}")
        if isinstance(trainer.model_wrapped, DistributedDataParallel):
            logging.info("gradients are views: %s", trainer.model_wrapped.gradient_as_bucket_view)
        if trainer.accelerator.is_fsdp2:
            parts = [part for part in trainer.model_wrapped.modules() if isinstance(part, FSDPModule)]
            groups = [group for part in parts for group in part._get_fsdp_state()._fsdp_param_groups]
            held = [one for group in groups for one in group.fsdp_params]
            whole = [one.unsharded_accumulated_grad is not None or one._unsharded_param.grad is not None
                     for one in held if hasattr(one, "_unsharded_param")]  # fmt: skip
            logging.info("of %d gradients whole: %d", len(held), sum(whole))
        return compute_loss(trainer, *given, **named)

    PolicyTrainer.compute_loss = told  # type: ignore


@contextmanager
def uneven() -> Iterator[None]:
    """Has the last process take its dialogues one by one, and then all that are left."""

    def sizes(lengths: Sequence[int], count: int) -> list[int]:
        if rank() < world() - 1:
            return token_balanced(lengths, count)
        return [1] * (count - 1) + [len(lengths) - count + 1]

    batches.token_balanced = sizes
    yield
    batches.token_balanced = token_balanced


@contextmanager
def spoiled_step(spoil: Callable[[torch.Tensor], torch.Tensor | None], step: int) -> Iterator[None]:
    """Has the last process spoil a loss, or something else, once in a step of each run."""
    compute_loss, done = PolicyTrainer.compute_loss, set()

    def spoiled(trainer: PolicyTrainer, *given: Any, **named: Any) -> torch.Tensor:
        loss = compute_loss(trainer, *given, **named)
        here = trainer.state.global_step == step - 1 and rank() == world() - 1 and trainer not in done
        done.update([trainer] * here)
        other = spoil(loss) if here else None
        return loss if other is None else other

    PolicyTrainer.compute_loss = spoiled  # type: ignore
    yield
    PolicyTrainer.compute_loss = compute_loss  # type: ignore


if __name__ == "__main__":
    pretend()
    count_split_layers()
    tell_gradients()
    processes = int(os.environ["WORLD_SIZE"])
    strategy: Any = os.environ["STRATEGY"]
    machines = processes // int(os.environ["LOCAL_WORLD_SIZE"])
    here = {"strategy": strategy, "processes": processes // machines, "machines": machines}
    here["sampler"] = os.environ.get("SAMPLER")  # the address of a server to sample with
    asked = RUNTIME.launch.model_copy(update=here)  # not validated: addresses are the launcher's
    folder, made, kinds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    if kinds == ["methods"]:
        train_methods(folder, made, asked)
    elif kinds == ["poisoned"]:
        with spoiled_step(lambda loss: loss * float("nan"), step=2):
            train(folder, made, asked, ["full"])
    else:
        train(folder, made, asked, kinds)
    leave()  # as a stage's processes end
