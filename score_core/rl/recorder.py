"""What training says while it runs: a JSONL log as it happens, a line on the screen, curves at the end."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from score_core.files import replacing
from score_core.rl.collapse import CollapseMonitor
from score_core.rl.stopwatch import PARTS, Stopwatch

STEP, VALIDATION = "step", "validation"


class Recorder(TrainerCallback):
    """Writes each training step and each validation as a line of JSON, as it happens.

    Lines hold no times, so equal runs write equal files. What a continued run had logged before is in the
    Trainer's state, and is written again from there: lines of steps after its checkpoint are dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Starts the file, with what was logged before."""
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(map(_line, state.log_history)))

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by the Trainer with what it logs, which is the latest entry of its history."""
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(_line(state.log_history[-1]))

    def rows(self, kind: str) -> pd.DataFrame:
        """The lines of one kind so far, one row each, `step` first."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return pd.DataFrame([line for line in lines if line["kind"] == kind]).drop(columns="kind")

    def publish(self, stem: Path) -> None:
        """Writes `<stem>.jsonl`, `<stem>_curve.csv` and `<stem>_validation.csv`."""
        with replacing(Path(f"{stem}.jsonl")) as temporary:
            temporary.write_text(self.path.read_text())
        for kind, name in ((STEP, "curve"), (VALIDATION, "validation")):
            with replacing(Path(f"{stem}_{name}.csv")) as temporary:
                self.rows(kind).to_csv(temporary, index=False)


class Progress(TrainerCallback):
    """One line that tells how training goes: warnings, rewards of the attempts, latest validation, rate.

    Beside it a log of where each step's time went, which is no result: equal runs differ in it.

    Args:
        name: of the stage.
        monitor: is told of each step before this is.
        trajectories: of a step, over all processes.
        stopwatch: of the trainer's steps; validation and saves are in none of their parts.
        timing: JSON lines: `step`, `seconds`, those of `stopwatch.PARTS`, `trajectories_a_second`,
            `tokens_a_second` (sampled ones). A resumed run goes on in it, any other starts it.
    """

    def __init__(
        self, name: str, monitor: CollapseMonitor, trajectories: int, stopwatch: Stopwatch, timing: Path
    ) -> None:
        self.name, self.monitor, self.timing = name, monitor, timing
        self.trajectories, self.stopwatch = trajectories, stopwatch
        self.bar: tqdm | None = None
        self.validation = ""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Opens the line."""
        self.stopwatch.lap()
        if state.is_world_process_zero:
            if state.global_step == 0:
                self.timing.unlink(missing_ok=True)
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.name, unit="step", mininterval=1
            )

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        """Brings the line up to date."""
        if self.bar is None or logs is None:
            return
        if "eval_delta" in logs:
            self.validation = (
                f"validation {logs['eval_accuracy_t1']:.1%} -> {logs['eval_accuracy_t2']:.1%} "
                f"({logs['eval_delta'] * 100:+.1f})"
            )
        elif "loss" in logs:
            rewards = " -> ".join(f"{logs[key]:.2f}" for key in sorted(logs) if key.startswith("reward_t"))
            spent = self._time(state.global_step, logs)
            shown = [self.monitor.shown.upper(), f"reward {rewards}", self.validation, spent]
            self.bar.set_postfix_str(", ".join(filter(None, shown)), refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def _time(self, step: int, logs: dict[str, float]) -> str:
        """Logs where a step's time went; returns it for people."""
        lap = self.stopwatch.lap()
        tokens = self.trajectories * sum(logs[key] for key in logs if key.startswith("length_"))
        rates = {
            "trajectories_a_second": self.trajectories / lap["seconds"],
            "tokens_a_second": tokens / lap["seconds"],
        }
        with self.timing.open("a") as file:
            file.write(json.dumps({"step": step, **lap, **rates}) + "\n")
        shares = "/".join(f"{100 * lap[part] / lap['seconds']:.0f}" for part in PARTS)
        return (
            f"{rates['trajectories_a_second']:.0f} traj/s, {rates['tokens_a_second']:.0f} tok/s, "
            f"{'/'.join(PARTS)} {shares} %"
        )

    def close(self) -> None:
        """Ends the line, so that whatever is said next, an error too, has one of its own."""
        if self.bar is not None:
            self.bar.close()


def _line(entry: dict[str, float]) -> str:
    """An entry of the Trainer's history as a line of the log; "" for other than steps and validations."""
    kind = STEP if "loss" in entry else VALIDATION if "eval_delta" in entry else None
    if kind is None:
        return ""
    # In alphabetical order, since a history that was saved and read has lost any other.
    values = {name.removeprefix("eval_"): entry[name] for name in sorted(entry) if name != "epoch"}
    return json.dumps({"kind": kind, "step": values.pop("step"), **values}) + "\n"
