"""Evaluates a model folder: its attempts at the test problems, and how many are right.

    python -m tasks.evaluate models/base --name base --data data/prepared \\
        --metrics metrics/base.json --generations generations/base.parquet

Writes METRICS, flat and unrounded (score_core/evaluation/metrics.py), and GENERATIONS, the answers behind it.
Where the prepared data hold programs to repair, METRICS also says how many of these become right.
"""

import argparse
import math
from pathlib import Path

from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.files import replacing, write_json
from score_core.problems import REPAIR, read_problems
from tasks.runner.command_line import RUNS, run_name, run_stage
from tasks.runner.recorded import remove_recorded

WORDS = ("em", "in_acc")  # matchers of answers in words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and every path."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder, or an adapter's")
    parser.add_argument("--name", type=run_name, required=True, help="names the run and its log")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the prepared splits")
    parser.add_argument("--metrics", type=Path, required=True, metavar="FILE", help="JSON to write")
    parser.add_argument("--generations", type=Path, required=True, metavar="FILE", help="parquet to write")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="the model under an adapter")
    another = "another sample's first attempt in place of the second attempt"
    parser.add_argument("--resample", action="store_true", help=another)


def run(given: argparse.Namespace, config: Config, runtime: Runtime) -> None:
    """Evaluates `given.model` on the test split as `config.evaluation` says."""
    problems = read_problems(given.data, "test")

    from score_core.distributed import rank
    from score_core.evaluation.budgets import budgets
    from score_core.evaluation.evaluate import Evaluator
    from score_core.evaluation.metrics import summarise
    from score_core.evaluation.passed_tests import passed_tests
    from score_core.evaluation.repair import repair, summarise_repair
    from score_core.evaluation.resampled import resampled
    from score_core.evaluation.word_overlap import word_overlap
    from score_core.rollout.engines import sampled_by

    evaluator = Evaluator(given.model, config, runtime, given.base)
    generations = evaluator.evaluate(problems)
    if given.resample:
        generations = resampled(generations)
    metrics = summarise(generations)
    gained, lost = metrics["delta_i_to_c"], metrics["delta_c_to_i"]
    assert math.isclose(metrics["delta"], gained - lost, abs_tol=1e-9), metrics
    if config.evaluation.samples > 1 and not given.resample:
        metrics["budgets"] = budgets(generations)
    if config.reward.matcher == "code_tests":
        metrics |= passed_tests(generations, problems, config.reward)
    if config.reward.matcher in WORDS:
        metrics |= word_overlap(generations, problems)
    if (given.data / f"{REPAIR}.parquet").exists():
        more = summarise_repair(repair(evaluator, read_problems(given.data, REPAIR)))
        metrics["ci95"] |= more.pop("ci95")
        metrics |= more
    metrics |= sampled_by(evaluator.engine_name)
    if rank() != 0:
        return
    remove_recorded(RUNS)  # by now those of the model's training are
    with replacing(given.generations) as temporary:
        generations.to_parquet(temporary, index=False)
    write_json(given.metrics, metrics)


if __name__ == "__main__":
    run_stage(
        "evaluate",
        add_arguments,
        outputs=lambda given: [given.metrics, given.generations],
        run=run,
        section=lambda given: None,
        model=lambda given: given.base or given.model,
    )
