"""Stage `train_stage1`: learn to correct, holding first attempts to the base model.

Writes `models/stage1/` and `metrics/train_stage1*`: a summary, the curves of training and of
validation, and both as one log.
"""

from functools import partial
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.runner.command_line import RUNS, run_stage
from tasks.runner.launch import launched

MODEL = Path("models/stage1")
METRICS = Path("metrics/train_stage1")
OUTPUTS = (
    MODEL,
    METRICS.with_suffix(".json"),
    METRICS.with_suffix(".jsonl"),
    Path(f"{METRICS}_curve.csv"),
    Path(f"{METRICS}_validation.csv"),
)


def run(config: Config, runtime: Runtime) -> None:
    """Trains the base model as `config.stage1` says."""
    from score_core.rl.training import Folders, train_stage1

    folders = Folders(
        base=Path("models/base"),
        data=Path("data/prepared"),
        output=MODEL,
        metrics=METRICS,
        work=RUNS / "train_stage1",
    )
    train_stage1(config, runtime, folders)


if __name__ == "__main__":
    run_stage("train_stage1", run, OUTPUTS, partial(launched, trains="stage1"))
