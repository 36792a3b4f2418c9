"""How long prompts and answers are, and how many answers are found: what token budgets are set by.

    python -m tasks.commands.profile_lengths [MODEL] [--problems 100] [--set KEY=VALUE]...

Run it after `dvc repro prepare_base_model`, before training. It tokenises the prompts of all prepared
problems and has the base model answer some training problems as in evaluation, then prints percentiles, the
shares of answers that were cut, found and right, and values for max_prompt_tokens and max_new_tokens.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from score_core.config.schema import Config
from score_core.errors import UserError
from score_core.problems import SPLITS, read_problems
from tasks.runner.command_line import add_configuration, in_one_process, read_configuration
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.pipeline import outputs_of

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (50, 90, 99, 100)
STEP = 64  # budgets are multiples of it
CUT = 0.01  # of the answers may be cut at a good budget


def table(prompts: list[int], answers: "pd.DataFrame", config: Config) -> str:
    """The percentiles and shares, a row for the prompts and one for each attempt, and the budgets.

    Args:
        prompts: tokens of each.
        answers: a table of generations.
        config: with which they were made.
    """
    import numpy as np
    import pandas as pd

    from score_core.evaluation.metrics import attempts_in

    def percentiles(lengths: Sequence[int]) -> dict[str, object]:
        found = np.percentile(lengths, PERCENTILES, method="inverted_cdf")
        return {f"{share} %": int(tokens) for share, tokens in zip(PERCENTILES, found, strict=True)}

    rows = {"prompt": percentiles(prompts)}
    for t in range(1, attempts_in(answers) + 1):
        shares = {
            "cut": answers[f"truncated_t{t}"].mean(),
            "found": answers[f"extracted_t{t}"].notna().mean(),
            "right": answers[f"correct_t{t}"].mean(),
        }
        rows[f"attempt {t}"] = percentiles(answers[f"tokens_t{t}"]) | {
            name: f"{share:.1%}" for name, share in shares.items()
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    shown = frame.fillna("").to_string()
    return f"{shown}\n\n{prompt_budget(prompts)}\n{answer_budget(answers, config)}"


def prompt_budget(prompts: list[int]) -> str:
    """What `max_prompt_tokens` should be: as much as the longest takes, since none is cut."""
    return f"conversation.max_prompt_tokens: {_rounded(max(prompts))}"


def answer_budget(answers: "pd.DataFrame", config: Config) -> str:
    """What `max_new_tokens` should be: enough for all but one in a hundred answers.

    Where more were cut, all that is known is that it should be more than the limit of `evaluation`, which may
    have one of its own.
    """
    import numpy as np

    from score_core.evaluation.metrics import attempts_in

    attempts = range(1, attempts_in(answers) + 1)
    cut = max(answers[f"truncated_t{t}"].mean() for t in attempts)
    if cut > CUT:
        limit = config.evaluated_conversation.max_new_tokens
        section = "conversation" if config.evaluation.max_new_tokens is None else "evaluation"
        return (
            f"{section}.max_new_tokens: more than {limit}, at which {cut:.0%} are cut; measure again with "
            f"--set {section}.max_new_tokens={2 * limit}, or ask for shorter answers"
        )
    longest = max(
        np.percentile(answers[f"tokens_t{t}"], 100 * (1 - CUT), method="inverted_cdf") for t in attempts
    )
    return f"conversation.max_new_tokens: {_rounded(int(longest))}"


def _rounded(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def run(given: argparse.Namespace) -> None:
    """Measures what the command line asks for."""
    config, runtime = read_configuration(given)
    if given.problems < 1:
        raise UserError(f"--problems: expected a number from 1, found {given.problems}.")
    splits = {split: read_problems(given.data, split) for split in SPLITS}
    from score_core.evaluation.evaluate import Evaluator

    evaluator = Evaluator(given.model, config, in_one_process(runtime), given.base)
    everything = [problem for split in splits.values() for problem in split]
    prompts = [len(evaluator.conversation.prompt(problem)) for problem in everything]
    longest = everything[prompts.index(max(prompts))]
    print(f"{len(prompts)} prompts; the longest is that of problem {longest.id}")
    answers = evaluator.evaluate(splits["train"][: given.problems])
    print(f"{answers['id'].nunique()} training problems answered by {given.model}; tokens by percentile\n")
    print(table(prompts, answers, config))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.profile_lengths", __doc__)
    model, data = outputs_of("prepare_base_model")[0], outputs_of("download_data")[0]
    parser.add_argument("model", type=Path, nargs="?", default=model, help=f"a model folder ({model})")
    parser.add_argument("--base", type=Path, help="the model under an adapter")
    parser.add_argument("--data", type=Path, default=data, help=f"the prepared splits ({data})")
    parser.add_argument("--problems", type=int, default=100, help="training problems to answer (100)")
    add_configuration(parser)
    given = parser.parse_args(arguments)
    return exit_code("profile_lengths", lambda: run(given))


if __name__ == "__main__":
    sys.exit(main())
