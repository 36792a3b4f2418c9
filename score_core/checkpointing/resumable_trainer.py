"""A `transformers.Trainer` that may die at any moment and resumes, bit for bit, from its last checkpoint.

What a checkpoint holds and how it is read is the Trainer's: weights, optimiser, schedule, random states,
and in `trainer_state.json` all that was logged. Added here: checkpoints are sealed (see `checkpoints.py`),
saved by the clock and when told to stop, and hold what a subclass keeps from step to step.

All ranks decide together: the first one's clock, and a signal to any of them, count for all.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from score_core.checkpointing.checkpoints import Checkpoints, size_of
from score_core.checkpointing.stopping import Stop
from score_core.distributed import is_finite
from score_core.errors import NotFinite, Stopped, UserError
from score_core.files import check_writable, is_disk_full

log = logging.getLogger(__name__)

# Between two saves passes so many times as long as one takes: saving takes a tenth of the time at most. Where
# it takes a minute, as with large models, that makes nine minutes of any shorter interval.
LEAST_INTERVAL = 9


class ResumableTrainer(Trainer):
    """Saves itself in `checkpoints`, stops when told to, and resumes."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        checkpoints: Checkpoints,
        **kwargs: Any,
    ) -> None:
        self.checkpoints, self.stop = checkpoints, Stop()
        self._sealing = ThreadPoolExecutor(max_workers=1)
        self._sealed: Future[None] = Future()
        self._sealed.set_result(None)
        super().__init__(model, args, **kwargs)
        self.saving = _Saving(self, checkpoints)
        self.add_callback(self.saving)
        self.add_callback(_ExtraState(self))

    def extra_state(self) -> dict[str, Any]:
        """What a step leaves to the next beside weights and optimiser, as JSON."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up what `extra_state` gave."""

    def train_from_newest(self) -> None:
        """Trains to the end, from the newest checkpoint if there is one.

        Raises:
            Stopped: the process was told to stop; it has saved.
            UserError: checkpoints cannot be written, or will not fit; or a number is not finite.
        """
        step = None
        if self.is_world_process_zero():
            check_writable(self.checkpoints.unfinished)
            step = self.checkpoints.newest()
            self.checkpoints.clear()
        step = broadcast_object_list([step])[0]
        if step is not None:
            log.info("resumed from step %d", step)
            self.args.eval_on_start = False
        try:
            with self.stop.deferring_signals(), self._sealing:
                self.train(None if step is None else str(self.checkpoints.path(step)))
                self._wait_until_sealed()
        except NotFinite as error:
            last = max(self.checkpoints.steps(), default=None)
            raise UserError(
                f"{self.checkpoints.folder}: after step {self.state.global_step} {error}, and only finite "
                f"numbers are trained on. Nothing is published, and {_kept(last)}; lower the learning rate "
                f"({self.args.learning_rate:g} here), or look at the model that it starts from."
            ) from error
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise self._failure("the log", error) from error
        if any(self.any_process(self.stop.asked)):
            raise Stopped(f"stopped and saved at step {self.state.global_step} of {self.args.max_steps}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Refuses figures that are not finite, before they are logged and before anything is saved.

        Losses and gradients are those of all ranks, so that all refuse together.

        Raises:
            NotFinite: the loss, the gradient's norm or another figure of the step.
        """
        # DeepSpeed says -1 for the norm of a gradient that is not finite.
        wrong = [
            name for name, value in logs.items() if not isfinite(value) or (name, value) == ("grad_norm", -1)
        ]
        if wrong:
            raise NotFinite(", ".join(f"{name} is {logs[name]}" for name in wrong))
        super().log(logs, start_time)

    def any_process(self, *flags: bool) -> list[bool]:
        """Which of the flags are set in any process; all ranks decide together, so all must call."""
        counts = torch.tensor([int(flag) for flag in flags], device=self.args.device)
        return [count > 0 for count in self.accelerator.reduce(counts, reduction="sum").tolist()]

    def load_step(self, step: int) -> None:
        """Puts the weights of a step that was kept as the best into the model."""
        self.checkpoints.check(step)
        self.state.best_model_checkpoint = str(self.checkpoints.path(step))
        self._load_best_model()

    # ------------------------------------------------------------- where and how the Trainer writes

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self.checkpoints.unfinished)

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        began = time.monotonic()
        self._wait_until_sealed()
        self.write_checkpoint()
        if self.is_world_process_zero():
            # Training goes on while files are hashed and flushed to the disk.
            self._sealed = self._sealing.submit(self.checkpoints.seal, self.state.global_step)
        self.saving.saved(began)

    def _wait_until_sealed(self) -> None:
        with self._explaining_failure():
            self._sealed.result()

    def write_checkpoint(self) -> None:
        """Has the Trainer write all of its checkpoint, not sealed yet.

        Raises:
            NotFinite: weights are not; nothing is written.
            UserError: the disk is full, or another reason why it cannot be written.
        """
        model: Any = self.model
        if any(self.any_process(not is_finite(model))):
            raise NotFinite("weights are NaN or infinite")
        with self._explaining_failure():
            super()._save_checkpoint(self.model_wrapped, None)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _explaining_failure(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch reports files that it cannot write as RuntimeError that names its own source file.
            if isinstance(error, RuntimeError) and "inline_container" not in str(error):
                raise
            raise self._failure("the checkpoint", error) from error

    def _failure(self, what: str, error: Exception) -> UserError:
        self.checkpoints.clear()
        last = self.checkpoints.newest()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(
            f"{self.checkpoints.folder}: {what} of step {self.state.global_step} cannot be written "
            f"({reason}); {_kept(last)}; free some space, or mend the folder's permissions, and "
            "run the same command again."
        )


def _kept(last: int | None) -> str:
    return "no checkpoint was written before" if last is None else f"the checkpoint of step {last} is intact"


class _Saving(TrainerCallback):
    """Decides when to save, and tries before the first step whether that works."""

    def __init__(self, trainer: ResumableTrainer, checkpoints: Checkpoints) -> None:
        self.trainer, self.checkpoints = trainer, checkpoints
        self.saved_at = 0.0
        # Of the last two: a process that was suspended while it saved has not become slow for long.
        self.seconds_to_save: deque[float] = deque(maxlen=2)

    def saved(self, began: float, larger: float = 1.0) -> None:
        """Takes in that saving began at a time and is done now; later saves are so many times as large."""
        self.saved_at = time.monotonic()
        self.seconds_to_save.append(larger * (self.saved_at - began))

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Checks the disk: by a save where there is none yet, and for room."""
        self.saved_at = time.monotonic()
        folder, to_come = self.checkpoints.path(state.global_step), 0
        if state.global_step == 0:
            folder, to_come = self.checkpoints.unfinished, self._try()
        if state.is_world_process_zero:
            there = size_of(folder)
            if state.global_step == 0:
                self.saved(self.saved_at, larger=1 + to_come / there)
            self.checkpoints.clear()
            if state.global_step < args.max_steps:
                self.checkpoints.check_space(there + to_come)

    def _try(self) -> int:
        """Writes a checkpoint that is not kept; returns by how many bytes those in training are larger."""
        optimizer: Any = self.trainer.optimizer
        untouched = not optimizer.state
        self.trainer.write_checkpoint()
        if not untouched:
            return 0
        # Two numbers a trained parameter are still to come. Where saving a sharded optimiser has made them
        # it has counted that as a step.
        optimizer.state.clear()
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        return 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Saves when it is time, at the end, and before stopping."""
        least = LEAST_INTERVAL * min(self.seconds_to_save, default=0.0)
        interval = max(self.checkpoints.settings.every_seconds, least)
        due = state.is_world_process_zero and time.monotonic() - self.saved_at >= interval
        due, asked = self.trainer.any_process(due, self.trainer.stop.asked)
        control.should_save |= due or asked or state.global_step >= args.max_steps
        control.should_training_stop |= asked

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Validation may take long: a signal that came meanwhile is answered after it."""
        if state.global_step > 0 and any(self.trainer.any_process(self.trainer.stop.asked)):
            control.should_save = control.should_training_stop = True


class _ExtraState(TrainerCallback, ExportableState):
    """Has the Trainer keep a `ResumableTrainer`'s extra state in its own."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def state(self) -> dict[str, Any]:
        """Called by the Trainer when it saves."""
        return self.trainer.extra_state()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Takes it up again; in a fresh run that is what the trainer was made with."""
        states: Any = state.stateful_callbacks
        self.trainer.load_extra_state(states[type(self).__name__])
