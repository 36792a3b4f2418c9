"""Stage `evaluate_final`: the attempts of the fully trained model at the test problems.

Writes `metrics/final.json` and `generations/final.parquet`.
"""

from functools import partial
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from tasks.evaluation import evaluate_model, outputs
from tasks.runner.command_line import run_stage
from tasks.runner.launch import launched

OUTPUTS = outputs("final")


def run(config: Config, runtime: Runtime) -> None:
    """Evaluates `models/stage2` as `config.evaluation` says."""
    evaluate_model(config, runtime, Path("models/stage2"), "final")


if __name__ == "__main__":
    run_stage("evaluate_final", run, OUTPUTS, partial(launched, trains=None))
