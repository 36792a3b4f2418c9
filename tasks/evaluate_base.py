"""Stage `evaluate_base`: the base model's attempts at the test problems.

Writes `metrics/base.json` and `generations/base.parquet`.
"""

from functools import partial
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.evaluation import evaluate_model, outputs
from tasks.runner.command_line import run_stage
from tasks.runner.launch import launched

OUTPUTS = outputs("base")


def run(config: Config, runtime: Runtime) -> None:
    """Evaluates `models/base` as `config.evaluation` says."""
    evaluate_model(config, runtime, Path("models/base"), "base")


if __name__ == "__main__":
    run_stage("evaluate_base", run, OUTPUTS, partial(launched, trains=None))
