"""What the three evaluations share: a model folder in, metrics and generations out."""

import math
from pathlib import Path

from score_core.config.parsing import Config
from score_core.config.runtime import Runtime
from score_core.files import replacing, write_json
from score_core.problems import read_problems

DATA = Path("data/prepared")


def outputs(name: str) -> tuple[Path, Path]:
    """The two files of an evaluation: its metrics, and every answer behind them."""
    return Path("metrics") / f"{name}.json", Path("generations") / f"{name}.parquet"


def evaluate_model(config: Config, runtime: Runtime, model: Path, name: str) -> None:
    """Evaluates the model folder `model` on the test split and writes `outputs(name)`."""
    problems = read_problems(DATA, "test")

    from score_core.distributed import rank
    from score_core.evaluation.evaluate import evaluate
    from score_core.evaluation.metrics import summarise

    generations = evaluate(model, problems, config, runtime)
    metrics = summarise(generations)
    gained, lost = metrics["delta_i_to_c"], metrics["delta_c_to_i"]
    assert math.isclose(metrics["delta"], gained - lost, abs_tol=1e-9), metrics
    if rank() != 0:
        return
    metrics_file, generations_file = outputs(name)
    with replacing(generations_file) as temporary:
        generations.to_parquet(temporary, index=False)
    write_json(metrics_file, metrics)
