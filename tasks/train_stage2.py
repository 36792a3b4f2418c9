"""Stage `train_stage2`: improve every attempt, and progress from one to the next.

Writes `models/stage2/` and `metrics/train_stage2*`: a summary, the curves of training and of
validation, and both as one log.
"""

from functools import partial
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.runner.command_line import RUNS, run_stage
from tasks.runner.launch import launched

MODEL = Path("models/stage2")
METRICS = Path("metrics/train_stage2")
OUTPUTS = (
    MODEL,
    METRICS.with_suffix(".json"),
    METRICS.with_suffix(".jsonl"),
    Path(f"{METRICS}_curve.csv"),
    Path(f"{METRICS}_validation.csv"),
)


def run(config: Config, runtime: Runtime) -> None:
    """Trains Stage I's model as `config.stage2` says."""
    from score_core.rl.training import Folders, train_stage2

    folders = Folders(
        base=Path("models/base"),
        data=Path("data/prepared"),
        output=MODEL,
        metrics=METRICS,
        work=RUNS / "train_stage2",
    )
    train_stage2(config, runtime, folders, start=Path("models/stage1"))


if __name__ == "__main__":
    run_stage("train_stage2", run, OUTPUTS, partial(launched, trains="stage2"))
