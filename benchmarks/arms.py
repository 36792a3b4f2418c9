"""The arms of experiments/compare: for each method of methods.yaml its resolved settings.

    python -m benchmarks.arms [--write FOLDER]

prints what each cell trains and for about how long. FOLDER gets METHOD.yaml, a whole params.yaml with the one
section METHOD, and METHOD.json, what of it a trained model hangs on: the file that DVC compares. So it does
for what the base model is made and asked by beside the methods: base_verifying and fix.
"""

from pathlib import Path
from typing import Any

import yaml

from benchmarks.tables import markdown
from score_core.algorithms import SETTINGS
from score_core.config.parsing import parse_config
from score_core.config.reward import BASE
from score_core.config.schema import Config
from score_core.config.training import Training
from score_core.errors import UserError, nearest
from score_core.files import read_yaml, replacing, write_json
from tasks.runner.exits import exit_code, parser_of

LISTS = ("from_base", "from_stage1", "from_verifying")  # of methods.yaml, by what training starts from
METHODS = Path("experiments/compare/methods.yaml")
READ = ("conversation", "lora", "model", "reward")  # beside its stage, what training reads of params.yaml
REMEDY = "`git checkout` restores it"
SCORE = ("stage1", "stage2")
VARIANTS = {  # of params.yaml, and the sections that their commands read
    "base_verifying": ("data", "model", "smoke"),
    "fix": ("conversation", "evaluation", "model", "reward", "smoke"),
}
# Of the embedded default on two cores: a sampled and trained attempt (benchmarks/rate.csv), and what a cell
# takes beside them, to start, validate, save and be evaluated.
SECONDS_AN_ATTEMPT, SECONDS_A_CELL = 0.0012, 25


def trained_methods(methods: dict[str, Any]) -> list[str]:
    """The methods that are trained, in the order of the lists."""
    return [name for key in LISTS for name in methods[key]]


def arms(content: dict[str, Any], methods: dict[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """By method, a whole params.yaml whose only stage of training is the method's, with its name.

    Raises:
        UserError: a row names a section that is not there, or sets what its algorithm does not know; or the
            profile has something else than SCoRe, with which all are compared.
    """
    for name in SCORE:
        if content[name]["algorithm"] != f"score_{name}":
            raise UserError(
                f"{source}: {name}.algorithm is {content[name]['algorithm']}, and the matrix compares with "
                "SCoRe; select a profile that has it (profile=NAME)."
            )
    stages = {name for name, found in content.items() if isinstance(found, dict) and "algorithm" in found}
    shared = {name: section for name, section in content.items() if name not in stages}
    made = {}
    for name in trained_methods(methods):
        row = methods["arms"].get(name, {})
        section = row.get("section", name)
        if section not in stages:
            hint = nearest(section, stages)
            raise UserError(f"{METHODS}: {name}: {source} has no stage {section}; {hint}correct the row.")
        resolved = content["training"] | content[section] | row.get("set", {})
        resolved["steps"] *= row.get("stages", 1)
        made[name] = shared | {"training": {}, name: resolved}
        parse_config(made[name], SETTINGS, f"{METHODS}: {name}")
    return made


def check_cells(config: Config, methods: dict[str, Any], source: str) -> None:
    """Refuses what the pipeline takes and a cell would not, before hours are spent.

    Raises:
        UserError: with the key and the way out.
    """
    said = config.conversation
    if Path(said.folder).is_absolute():
        raise UserError(
            f"{source}: conversation.folder: {said.folder}: the matrix looks for prompts in the checkout; "
            "copy them there, e.g. to prompts/mine, and name that."
        )
    for key in ("verify", "revise"):
        if getattr(said, key) is None and (methods["from_verifying"] or methods["seeds_verifying"]):
            raise UserError(
                f"{source}: conversation.{key}: null, and what {METHODS} has in from_verifying needs it; "
                "name a prompt, or set from_verifying and seeds_verifying there to []."
            )
    for key, path in config.reward.read.items():
        if path == BASE:
            raise UserError(
                f"{source}: {key}: {path} is the pipeline's, and each cell of the matrix has a base model of "
                f"its own; keep one, e.g. `cp -rL {path} judge`, and name it there and in watched.model."
            )


def variants(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each of `VARIANTS` a whole params.yaml.

    The embedded base model has to be taught what others know: the words of a verdict, and what to do when it
    is asked to fix an answer. Others are asked by the `self_refine.txt` of their prompts.

    Raises:
        UserError: there is no such prompt.
    """
    conversation, model = content["conversation"], content["model"]
    embedded = model["source"] == "addition"
    refine = Path(conversation["folder"], "fix.txt" if embedded else "self_refine.txt")
    if not refine.is_file():
        raise UserError(
            f"{refine}: not found; write there what to say in place of {conversation['retry']}: to review "
            "the answer, and then to refine it."
        )
    verdicts = {"verdict_share": 0.5} if embedded else {}
    return {
        "base_verifying": content | {"model": model | verdicts},
        "fix": content | {"conversation": conversation | {"retry": str(refine)}},
    }


def hangs_on(config: Config, name: str) -> dict[str, Any]:
    """What a method's trained model hangs on, or what a variant's command makes."""
    if name in VARIANTS:
        return config.model_dump(mode="json", include=set(VARIANTS[name]))
    found = config.model_dump(mode="json", include=set(READ))
    return found | {"stage": config.stage(name).model_dump(mode="json")}


def attempts(stage: Training) -> int:
    """How many attempts a cell samples in training, verdicts on them included; of dialogues to their end."""
    iterations = getattr(stage, "iterations", 1)
    turns = 2 * stage.attempts - 1 if stage.verifies else stage.attempts
    return stage.steps * iterations * stage.prompts_per_step * stage.samples_per_prompt * turns


def main() -> None:
    """Prints the cells of a seed; writes them where that is asked for."""
    parser = parser_of("benchmarks.arms", __doc__)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="where the settings go")
    given = parser.parse_args()

    def work() -> None:
        methods, params = read_yaml(METHODS, REMEDY), Path("params.yaml")
        content = read_yaml(params, REMEDY)
        check_cells(parse_config(content, SETTINGS, str(params)), methods, str(params))
        made, beside = arms(content, methods, str(params)), variants(content)
        configs = {name: parse_config(one, SETTINGS, str(params)) for name, one in (made | beside).items()}
        counts = {name: attempts(configs[name].stage(name)) for name in made}
        print(markdown(["method", "attempts sampled"], [(name, f"{n:,}") for name, n in counts.items()]))
        seconds = sum(counts.values()) * SECONDS_AN_ATTEMPT + len(counts) * SECONDS_A_CELL
        seeds = len(methods["seeds"])
        hours = f"{seeds * seconds / 3600:.1f} hours"
        print(f"\nAbout {hours} for {seeds} seeds of the embedded default on two cores.")
        if given.write is None:
            return
        for name, one in (made | beside).items():
            with replacing(given.write / f"{name}.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(one, sort_keys=False, allow_unicode=True))
            write_json(given.write / f"{name}.json", hangs_on(configs[name], name))

    raise SystemExit(exit_code("arms", work))


if __name__ == "__main__":
    main()
