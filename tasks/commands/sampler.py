"""Keeps a vLLM server running for stages on this or other machines: `python -m tasks.commands.sampler`.

    python -m tasks.commands.sampler [--model models/base] [--host 127.0.0.1] [--port 8000]

Stages use it with `launch.sampler: http://HOST:PORT` in runtime.yaml, one at a time, for models of the same
shape as this one's: they hand their weights over. Whoever reaches the address can do that, too, so it must be
one of this machine or of a private network. `make vllm` sets up what it needs; Ctrl-C ends it.
"""

import argparse
import sys
from pathlib import Path

from score_core.errors import UserError
from tasks.runner.command_line import add_configuration, read_configuration
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.pipeline import check_model_made, outputs_of
from tasks.runner.processes import end_with_parent


def run(given: argparse.Namespace) -> int:
    """Serves until the server ends; returns its exit code."""
    config, runtime = read_configuration(given)
    check_model_made(given.model, "prepare_base_model")
    if all(one.sampling == "reproducible" for one in (config.evaluation, *config.stages.values())):
        raise UserError(
            f"{given.params}: training.sampling and evaluation.sampling: reproducible keeps every stage from "
            "asking a server; set any where one is to sample, also with --set training.sampling=any."
        )
    from score_core.models.folders import base_of
    from tasks.runner.sampler import adapter_rank, longest_asked, serving

    end_with_parent()
    base = base_of(given.model)
    # Of every method; those that verify need the prompts for it.
    can_verify = None not in (config.conversation.verify, config.conversation.revise)
    asked = {(one.attempts, one.verifies) for one in (config.evaluation, *config.stages.values())}
    longest = max(longest_asked(config, base, *one) for one in asked if can_verify or not one[1])
    rank = adapter_rank(config, given.model)
    with serving(base, config.dtype, longest, rank, runtime, given.host, given.port, None) as child:
        print(f"launch.sampler: http://{given.host}:{given.port}", flush=True)
        return child.process.wait()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.sampler", __doc__)
    base = outputs_of("prepare_base_model")[0]
    parser.add_argument("--model", type=Path, default=base, help=f"a model of the shape to serve ({base})")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on (8000)")
    add_configuration(parser)
    given = parser.parse_args(arguments)
    code = 0

    def serve() -> None:
        nonlocal code
        code = run(given)

    return exit_code("sampler", serve) or code


if __name__ == "__main__":
    sys.exit(main())
