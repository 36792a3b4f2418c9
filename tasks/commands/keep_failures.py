"""Makes a hard set: exercises that a profile's base model answers wrongly, greedily and at its first attempt.

    python -m tasks.commands.keep_failures data/hard --profile arithmetic_hard [--set KEY=VALUE]...

Draws exercises one batch after another (5-digit subtractions, unless --operation, --operands and --digits
say otherwise), has the model answer with the profile's prompts, and keeps the wrong ones until it has 200 to
train and 50 to test on. Writes train.jsonl, test.jsonl and manifest.json. Needs what the model needs, such as
a GPU.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from score_core.algorithms import SETTINGS
from score_core.config.data import ArithmeticData
from score_core.config.parsing import load_runtime, parse_config
from score_core.config.schema import Config
from score_core.config.splitting import Sizes
from score_core.errors import UserError, refusing
from score_core.files import parse_yaml, replacing, write_json
from score_core.problems import Problem, content_hash
from tasks.commands.profiles import check_known, compose
from tasks.runner.command_line import in_one_process
from tasks.runner.exits import exit_code, parser_of

if TYPE_CHECKING:
    from score_core.evaluation.evaluate import Evaluator

# What hub data have and local ones do not would be unknown keys.
ADVICE = """To use them, in the profile these lines, and data without name, revision, test_set and fixture:
data:
  source: local
  path: {path}
  columns: {{id: null, problem: question, answer: answer}}
  train_split: train
  test_split: test
watched:
  data: {path}"""


def failures(evaluator: "Evaluator", pool: Iterator[Problem], wanted: int) -> tuple[list[Problem], int]:
    """The first `wanted` problems of a pool whose first attempt is wrong, and how many it took to find them.

    Raises:
        UserError: the pool has not so many.
    """
    size = evaluator.config.evaluation.batch_size
    kept: list[Problem] = []
    answered = 0
    while batch := list(islice(pool, size)):
        table = evaluator.evaluate(batch)
        for problem, right in zip(batch, table["correct_t1"], strict=True):
            if len(kept) < wanted:
                answered += 1
                kept += [] if right else [problem]
        if len(kept) == wanted:
            return kept, answered
    raise UserError(
        f"--pool: of {answered} exercises the model answers only {len(kept)} wrongly, and {wanted} are asked "
        "for; take a larger pool or more --digits."
    )


def exercises(settings: ArithmeticData, seed: int) -> Iterator[Problem]:
    """Distinct exercises without end."""
    from score_core.embedded import arithmetic
    from score_core.seeding import stream

    seen = set()
    for text, answer in arithmetic.exercises(settings, stream(seed, "pool")):
        if text not in seen:
            seen.add(text)
            yield Problem(content_hash(text), text, (answer,))


def run(given: argparse.Namespace) -> None:
    """Makes the set that the command line asks for."""
    check_known(given.profile)
    if given.output.exists():
        raise UserError(f"{given.output}: exists and is not replaced; remove it or name another folder.")
    with refusing(f"profile {given.profile} cannot be composed", "check --set, KEY=VALUE"):
        text = compose([f"profile={given.profile}", *given.set])
    config = greedy(parse_config(parse_yaml(text), SETTINGS, f"profile {given.profile}"))
    with refusing("the exercises cannot be made", "see --help"):
        sizes = Sizes(train=given.train, validation=1, test=given.test)
        named = {key: getattr(given, key) for key in ("operation", "operands", "digits")}
        settings = ArithmeticData(source="arithmetic", sizes=sizes, **named)
    from score_core.evaluation.evaluate import Evaluator
    from tasks import prepare_base_model

    runtime = in_one_process(load_runtime(Path("runtime.yaml")))
    with tempfile.TemporaryDirectory() as work:
        base = Path(work) / "base"
        prepare_base_model.run(argparse.Namespace(output=base), config, runtime)
        pool = islice(exercises(settings, config.seed), given.pool)
        kept, answered = failures(Evaluator(base, config, runtime), pool, given.train + given.test)
    with replacing(given.output) as folder:
        folder.mkdir(parents=True)
        _write(folder / "train.jsonl", kept[: given.train])
        _write(folder / "test.jsonl", kept[given.train :])
        source = {"model": config.used_model.model_dump(), "seed": config.seed, **settings.model_dump()}
        write_json(folder / "manifest.json", {**source, "answered": answered, "wrong": len(kept)})
    print(
        f"{len(kept)} of {answered} answers were wrong ({len(kept) / answered:.0%}); {given.output} holds "
        f"{given.train} problems to train and {given.test} to test on.\n" + ADVICE.format(path=given.output)
    )


def greedy(config: Config) -> Config:
    """`config` with one greedy attempt a problem."""
    once = {"attempts": 1, "temperature": 0.0, "top_p": 1.0, "samples": 1}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=once)})


def _write(path: Path, problems: Sequence[Problem]) -> None:
    rows = [{"question": problem.problem, "answer": problem.answer} for problem in problems]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.keep_failures", __doc__)
    parser.add_argument("output", type=Path, help="a folder to write")
    parser.add_argument("--profile", required=True, help="whose base model and prompts are taken")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of its own")
    parser.add_argument("--operation", default="subtraction", help="addition, subtraction or multiplication")
    parser.add_argument("--operands", type=int, default=2)
    parser.add_argument("--digits", type=int, default=5)
    parser.add_argument("--pool", type=int, default=5000, help="exercises to try at most (5000)")
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=50)
    given = parser.parse_args(arguments)
    return exit_code("keep_failures", lambda: run(given))


if __name__ == "__main__":
    sys.exit(main())
