"""What a run of a profile would do and cost, without a network: `make plan profile=NAME`.

    python -m tasks.commands.plan NAME [--set KEY=VALUE]... [--gpu h100] [--answer TOKENS]

Composes and checks the profile with its real model and data, as DVC would with `-S KEY=VALUE`, and prints its
stages, their sizes, the memory that a GPU needs, and GPU-hours as arithmetic whose assumptions it states.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from score_core.algorithms import SETTINGS
from score_core.config.code_data import CodeData
from score_core.config.data import HubData, LocalData
from score_core.config.model import AdditionModel, HubModel, LocalModel, TinyModel
from score_core.config.parsing import parse_config
from score_core.config.schema import Config, Evaluation
from score_core.config.training import Training
from score_core.data.sources import read_source
from score_core.errors import UserError, refusing
from score_core.files import parse_yaml
from score_core.rewards.tournament import pairings
from tasks.commands.costs import GPUS, INSTRUCTION, PROMPT, Plan, Work
from tasks.commands.profiles import check_known, compose
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.pipeline import read_pipeline, stages_of

KNOWN = Path(__file__).with_name("known_sizes.yaml")
COUNTS = (1, 4, 8)  # GPUs
ANSWER = 0.4  # of max_new_tokens that an ordinary answer has


def plan(name: str, overrides: list[str], gpu: str = "h100", answer: float | None = None) -> Plan:
    """The costs of a profile.

    Args:
        overrides: `KEY=VALUE` in place of the profile's own.
        gpu: a key of `GPUS`.
        answer: mean tokens of an answer; by default a share of the most.

    Raises:
        UserError: there is no such profile, a value is wrong, or sizes of its model or data are not known.
    """
    check_known(name)
    with refusing(f"profile {name} cannot be composed", "check --set, KEY=VALUE"):
        text = compose([f"profile={name}", *overrides])
    config = parse_config(parse_yaml(text), SETTINGS, f"profile {name}")
    work = []
    for stage in read_pipeline():
        if stage in stages_of("train"):
            words = read_pipeline()[stage]["cmd"].split()
            work.append(_training(config, stage, words[words.index("--name") + 1]))
        elif stage in stages_of("evaluate"):
            settings = config.evaluation
            rounds = ((1, _test_problems(config) * settings.samples),)
            most = config.evaluated_conversation.max_new_tokens
            turns = _turns(settings)
            work.append(Work(stage, turns, most, rounds, trains=False, at_once=settings.batch_size))
    mean = ANSWER * config.conversation.max_new_tokens if answer is None else answer
    return Plan(config, model_shape(config), tuple(work), GPUS[gpu], mean)


def model_shape(config: Config) -> Any:
    """The `Shape` of the model that a configuration names; weights are counted, and none is made.

    Raises:
        UserError: a hub model whose configuration is neither in `KNOWN` nor in the hub's cache, a local one
            that is not there, or a context too short for the dialogues.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from score_core.models.folders import context_limit, load_configs
    from score_core.models.memory import Shape

    match config.used_model:
        case HubModel(path=path, revision=revision):
            known = yaml.safe_load(KNOWN.read_text())["models"].get(path)
            remedy = f"fetch its config.json once, or add its sizes to {KNOWN.name}"
            with refusing(f"model.path: the sizes of {path} are not known without a network", remedy):
                settings = (
                    AutoConfig.from_pretrained(path, revision=revision, local_files_only=True)
                    if known is None
                    else AutoConfig.for_model(**known)
                )
        case LocalModel(path=path):
            settings = load_configs(Path(path))[0]
        case AdditionModel() as model:
            settings = AutoConfig.for_model(
                "qwen2",
                vocab_size=20,
                hidden_size=model.hidden_size,
                intermediate_size=model.feed_forward,
                num_hidden_layers=model.layers,
                num_attention_heads=model.heads,
                num_key_value_heads=model.heads,
            )
        case TinyModel():
            raise UserError("model.source: tiny is what smoke runs train; nothing to plan.")
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(settings)
    parameters = sum(weight.numel() for weight in made.parameters())
    said, attempts = config.conversation, config.evaluation.attempts
    turns = _turns(config.evaluation)
    needed = said.max_prompt_tokens + turns * said.max_new_tokens + (turns - 1) * INSTRUCTION
    limit = min(context_limit(settings) or needed, said.max_context_tokens or needed)
    if needed > limit:
        raise UserError(
            f"conversation: {attempts} attempts can reach about {needed} tokens and the context holds "
            f"{limit}; lower max_prompt_tokens or max_new_tokens."
        )
    return Shape.from_config(parameters, settings, config.dtype)


def _training(config: Config, stage: str, section: str) -> Work:
    settings = config.stage(section)
    validations = settings.steps // settings.validate_every + 1
    problems = min(settings.validation_problems, config.data.sizes.validation or settings.validation_problems)
    step = settings.prompts_per_step * settings.samples_per_prompt
    games = 0
    if (judge := config.reward.self_judge) is not None:
        pairs = len(pairings(settings.samples_per_prompt, judge.both_orders))
        games = settings.prompts_per_step * settings.attempts * pairs
    rounds = (settings.steps, step), (validations, problems)
    most = config.conversation.max_new_tokens
    return Work(stage, _turns(settings), most, rounds, trains=True, games=games)


def _turns(settings: Evaluation | Training) -> int:
    """Of a dialogue in which every attempt takes place, verdicts included."""
    return 2 * settings.attempts - 1 if settings.verifies else settings.attempts


def _test_problems(config: Config) -> int:
    data = config.data
    path = data.test.path if isinstance(data, CodeData) else getattr(data, "path", None)
    if isinstance(data, HubData) and data.test_set is not None:
        path = data.test_set.path
    rows = yaml.safe_load(KNOWN.read_text())["test_rows"].get(path)
    if isinstance(data, LocalData):
        rows = len(read_source(data).test.rows)
    sizes = [size for size in (rows, data.sizes.test) if size is not None]
    if not sizes:
        raise UserError(
            f"data.sizes.test: how many rows {path} has is not known offline; set the size to plan with."
        )
    return min(sizes)


def tell(made: Plan) -> str:
    """The plan as text."""
    config, shape, gpu = made.config, made.shape, made.gpu
    said, lora = config.conversation, config.lora
    where = getattr(config.model, "path", f"made here, {config.model.source}")
    data = config.data.test.path if isinstance(config.data, CodeData) else getattr(config.data, "path", None)
    trained = "all weights" if lora is None else f"adapters of rank {lora.rank}"
    lines = [
        f"{config.profile}: {where} on {data or f'problems made here, {config.data.source}'}",
        f"{_short(shape.parameters)} weights in {config.quantize or config.dtype}; {trained} trained.",
        f"A dialogue has up to {made.longest} tokens: a prompt of {said.max_prompt_tokens}, attempts of "
        f"{said.max_new_tokens}.",
        *_games(made),
        "",
        f"{'stage':<20}{'steps':>8}{'dialogues':>12}{'sampled':>12}{'trained on':>12}  tokens",
    ]
    for stage in read_pipeline():
        work = next((one for one in made.work if one.stage == stage), None)
        if work is None:
            lines.append(stage)
        else:
            steps = f"{work.rounds[0][0]:,}" if work.trains else ""
            trains = _short(made.trained(work)) if work.trains else ""
            lines.append(
                f"{stage:<20}{steps:>8}{work.dialogues:>12,}{_short(made.sampled(work)):>12}{trains:>12}"
            )
    if isinstance(config.model, AdditionModel):
        return "\n".join([*lines, "", "Made for two CPU cores, where it takes some minutes."])
    lines += ["", f"On {gpu.name}:"]
    lines += [f"  {count} GPU{'s' if count > 1 else ' '}  {_on(made, count)}" for count in COUNTS]
    return "\n".join([*lines, "", *_assumptions(made)])


def _games(made: Plan) -> list[str]:
    games, judge = max(work.games for work in made.work), made.config.reward.self_judge
    if judge is None:
        return []
    return [
        f"A step has {games:,} games, in which the policy judges itself in {judge.max_new_tokens} tokens."
    ]


def _on(made: Plan, count: int) -> str:
    try:
        fit = made.fit(count)
    except UserError as error:
        return f"not so: {error}"
    sampling = sum(made.sampling_seconds(work, fit) for work in made.work) / 3600
    training = sum(made.training_seconds(work, fit) for work in made.work) / 3600
    hours = sampling + training
    held = fit.held / 1e9
    return (
        f"{hours:.1f} h = {sampling:.1f} h sampling + {training:.1f} h training; {count * hours:.1f} "
        f"GPU-hours\n{'':10}{fit.strategy}: {held:.1f} GB of weights, gradients and optimiser on each, then "
        f"room to sample\n{'':10}{fit.batches.rows:,} dialogues side by side, or to train on "
        f"{fit.batches.tokens:,} tokens at a time"
    )


def _assumptions(made: Plan) -> list[str]:
    gpu, shape = made.gpu, made.shape
    flop = 6 if made.config.lora else 8
    least = shape.layers * gpu.layer_seconds * 1e3
    return [
        "Assumed, not measured:",
        f"  an answer has {made.answer:.0f} tokens (--answer), a prompt {PROMPT:.0%} of the most;",
        "  a batch is sampled until its longest answer ends, which is at the limit;",
        f"  a token of a batch takes {least:.0f} ms ({gpu.layer_seconds * 1e3:g} ms a layer: started from "
        "Python),",
        f"  or what reading at {gpu.reads_at:.0%} of {gpu.bandwidth / 1e12:g} TB/s or computing at "
        f"{gpu.computes_at:.0%} of {gpu.flop / 1e12:.0f} TFLOP/s takes;",
        f"  training takes tokens * weights * {flop} FLOP at {gpu.trains_at:.0%} of that;",
        "  nothing for loading, grading, saving, and what GPUs wait for one another.",
    ]


def _short(number: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.plan", __doc__)
    parser.add_argument("name", help="the profile")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of its own")
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--answer", type=float, metavar="TOKENS", help="mean length of an answer")
    given = parser.parse_args(arguments)
    return exit_code("plan", lambda: print(tell(plan(given.name, given.set, given.gpu, given.answer))))


if __name__ == "__main__":
    sys.exit(main())
