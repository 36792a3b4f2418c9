"""Stage `evaluate_stage1`: the attempts of Stage I's model at the test problems.

Writes `metrics/stage1.json` and `generations/stage1.parquet`.
"""

from functools import partial
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.evaluation import evaluate_model, outputs
from tasks.runner.command_line import run_stage
from tasks.runner.launch import launched

OUTPUTS = outputs("stage1")


def run(config: Config, runtime: Runtime) -> None:
    """Evaluates `models/stage1` as `config.evaluation` says."""
    evaluate_model(config, runtime, Path("models/stage1"), "stage1")


if __name__ == "__main__":
    run_stage("evaluate_stage1", run, OUTPUTS, partial(launched, trains=None))
