"""Reading `params.yaml`: parsed once, at the edge, into one immutable `Config`.

Unknown keys are errors that name the nearest known key. A few keys that people try are refused with
the reason instead. DVC itself never sees a key outside a stage's own section, so every stage
validates the whole file.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from score_core.config.runtime import Runtime
from score_core.config.schema import (
    AdditionData,
    AdditionModel,
    Conversation,
    Data,
    Evaluation,
    FileModel,
    HubData,
    HubModel,
    LocalData,
    Lora,
    Model,
    Report,
    Reward,
    Section,
    Sizes,
    Stage,
    Stage1,
    Stage2,
    TinyModel,
)
from score_core.errors import UserError

# Keys people bring from other trainers, and why there is no such key here.
REFUSED = {
    "top_p": "training samples from the whole distribution, since the scored distribution must be the "
    "sampled one; remove the key (temperature is the one setting)",
    "top_k": "training samples from the whole distribution, since the scored distribution must be the "
    "sampled one; remove the key (temperature is the one setting)",
    "trust_remote_code": "code from a hub is never run; use a model that transformers itself supports",
}

# Values people try, and why they are not choices.
REFUSED_VALUES = {
    "k1": "log pi - log pi_ref as a loss has zero expected gradient; use k1_in_reward, or exact, "
    "k2_in_loss or k3_in_loss",
}
REFUSED_VALUES["k1_in_loss"] = REFUSED_VALUES["k1"]

LAUNCH_PREFIX = "SCORE_LAUNCH_"

SectionT = TypeVar("SectionT", bound=Section)


class Config(Section):
    """The whole configuration of a run."""

    profile: str
    smoke: bool = False  # run at toy size: see `smoke_sized`
    seed: int = Field(ge=0)
    data: Data
    model: Model
    lora: Lora | None = None
    conversation: Conversation
    reward: Reward
    evaluation: Evaluation
    stage1: Stage1
    stage2: Stage2
    report: Report = Report()

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """What weights are held in; the embedded and the tiny models are float32."""
        return self.model.dtype if isinstance(self.model, FileModel) else "float32"

    @property
    def quantize(self) -> Literal["nf4"] | None:
        """How weights are packed, if they are."""
        return self.model.quantize if isinstance(self.model, FileModel) else None

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if isinstance(self.model, AdditionModel) and not isinstance(self.data, AdditionData):
            raise ValueError(
                "model.source: addition only knows sums, and data.source is "
                f"{self.data.source}; use a hub, local or tiny model"
            )
        if self.quantize is not None and self.lora is None:
            raise ValueError(
                f"model.quantize: {self.quantize} weights are not trained themselves; set lora, "
                "whose adapter is, or quantize: null"
            )
        return self


def load_config(path: Path) -> Config:
    """Reads and validates a parameter file.

    Raises:
        UserError: the file is missing, is not YAML, or a value in it is wrong; one line that names
            file and key, what was expected and what to do.
    """
    config = parse(Config, _read_yaml(path), source=str(path))
    return smoke_sized(config) if config.smoke else config


def load_runtime(path: Path, environment: Mapping[str, str] = os.environ) -> Runtime:
    """Reads and validates a runtime file; the errors are those of `load_config`.

    Args:
        environment: its variables `SCORE_LAUNCH_<KEY>` replace what the file says of `launch`.
    """
    content, source = _read_yaml(path), str(path)
    found = {name: environment[name] for name in environment if name.startswith(LAUNCH_PREFIX)}
    if found:
        keys = {
            name.removeprefix(LAUNCH_PREFIX).lower(): yaml.safe_load(text) for name, text in found.items()
        }
        content["launch"] = {**(content.get("launch") or {}), **keys}
        source += f" with {', '.join(found)} of the environment"
    return parse(Runtime, content, source=source)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the checkout, or give --params.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: not valid YAML{where}; mend it or `git checkout {path}`.") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: expected `key: value` lines, found none; `git checkout {path}` restores it."
        )
    return content


def parse(model: type[SectionT], content: dict[str, Any], source: str) -> SectionT:
    """Validates parsed parameters against `model`; `source` names them in errors."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(model, error, content)}") from None


def smoke_sized(config: Config) -> Config:
    """The same run at toy size: a tiny model of the same family, a few problems, two steps a stage.

    Everything that decides *what* is computed stays: prompts, rewards, objective, adapters.
    """

    def stage(full: Stage) -> dict[str, Any]:
        return {
            "steps": 2,
            "prompts_per_step": 4,
            "samples_per_prompt": min(full.samples_per_prompt, 2),
            "warmup_steps": 0,
            "validate_every": 1,
            "validation_problems": 8,
        }

    sizes = Sizes(train=64, validation=16, test=16)
    data: AdditionData | HubData | LocalData = config.data.model_copy(update={"sizes": sizes})
    if isinstance(config.data, HubData):
        if config.data.fixture is None:
            raise UserError("data.fixture: a smoke run of a hub data set needs it; name a local folder.")
        data = LocalData(
            source="local",
            path=config.data.fixture,
            sizes=sizes,
            **config.data.model_dump(include={"columns", "train_split", "test_split", "validation_share"}),
        )
    model = config.model
    if isinstance(model, AdditionModel):
        model = model.model_copy(update={"steps": 20})
    elif isinstance(model, HubModel):
        model = TinyModel(source="tiny", family=model.family)
    conversation = config.conversation
    return config.model_copy(
        update={
            "data": data,
            "model": model,
            "conversation": conversation.model_copy(
                update={"max_new_tokens": min(conversation.max_new_tokens, 24)}
            ),
            "stage1": config.stage1.model_copy(update=stage(config.stage1)),
            "stage2": config.stage2.model_copy(update=stage(config.stage2)),
        }
    )


def _explain(model: type[Section], error: ValidationError, content: dict[str, Any]) -> str:
    """The first problem of a validation error, as one line for a person."""
    # An unknown key explains the missing one it was meant to be, so it comes first.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    tags = {"addition", "hub", "local", "tiny"}  # pydantic adds a union's tag to the path
    path = [str(part) for part in problem["loc"]]
    path = [part for at, part in enumerate(path) if not (part in tags and at == 1)]
    key = ".".join(path) or "the parameters"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"{key}: {_unknown(model, path, content)}{more}"
    if problem["type"] == "missing":
        return f"{key}: missing; expected a value here{more}."
    if isinstance(problem["input"], str) and problem["input"] in REFUSED_VALUES:
        return f"{key}: {problem['input']} is refused: {REFUSED_VALUES[problem['input']]}{more}."
    message = problem["msg"].removeprefix("Value error, ")
    # Where a validator of a whole section speaks, its message names the key itself.
    found = "" if isinstance(problem["input"], dict | Section) else f", found {problem['input']!r}"
    return f"{key}: {message[0].lower() if found else message[0]}{message[1:]}{found}{more}."


def _unknown(root: type[Section], path: list[str], content: dict[str, Any]) -> str:
    name = path[-1]
    if name in REFUSED:
        return f"refused: {REFUSED[name]}."
    section = _section_model(root, path[:-1], content)
    known = list(section.model_fields) if section else []
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}."
    return f"unknown key; {hint}"


def _section_model(root: type[Section], path: list[str], content: dict[str, Any]) -> type[Section] | None:
    """The model that describes the section at `path`, by the annotations of its parents."""
    model = root
    value: Any = content
    for part in path:
        annotation = model.model_fields[part].annotation
        value = value.get(part, {})
        options = [o for o in getattr(annotation, "__args__", (annotation,)) if isinstance(o, type)]
        sections = [o for o in options if issubclass(o, Section)]
        if not sections:
            return None
        model = sections[0]
        for option in sections:
            source = option.model_fields.get("source")
            if source is not None and value.get("source") in getattr(source.annotation, "__args__", ()):
                model = option
    return model
