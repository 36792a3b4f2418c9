"""What every section of the configuration is: closed, immutable, complete; and the numbers in them.

What pydantic finds wrong with one is said in one line for a person.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from score_core.errors import UserError, nearest

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Natural = Annotated[int, Field(ge=0, le=2**31 - 1)]  # what every library's integers hold
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]

# Keys people bring from other trainers, and why there is no such key here.
REFUSED = {
    **dict.fromkeys(
        ("top_p", "top_k"),
        "training samples from the whole distribution, since the scored distribution must be the "
        "sampled one; remove the key (temperature is the one setting)",
    ),
    **dict.fromkeys(
        ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
        "what is scored must be what was sampled, and the trainer knows of no such change; remove the key",
    ),
    **dict.fromkeys(
        ("dropout", "lora_dropout"),
        "sampling has none, and the scored policy must be the sampled one; remove the key",
    ),
    "micro_batch_size": "micro-batches are counted in tokens; use micro_batch_tokens, where auto takes what "
    "fits",
    "mixed_precision": "params.yaml: model.dtype says what is computed in; remove the key",
    "trust_remote_code": "code from a hub is never run; use a model that transformers itself supports",
}

# Values people try, and why they are not choices.
REFUSED_VALUES = dict.fromkeys(
    ("k1", "k1_in_loss"),
    "log pi - log pi_ref as a loss has zero expected gradient; use k1_in_reward, or exact, "
    "k2_in_loss or k3_in_loss",
)

MISSING = (
    "copy it from conf/base.yaml or from a profile in conf/profile/, or compose the file anew with "
    "`dvc exp run -S profile=NAME`"
)


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know.

    No key has a default here: those of `params.yaml` stand in `conf/`, those of `runtime.yaml` in it.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, content: Any) -> Any:
        # Before all else, since an unknown key explains the missing one that it was meant to be.
        known = cls.model_fields
        unknown = [key for key in map(str, content) if key not in known] if isinstance(content, dict) else []
        says = [PydanticCustomError("unknown_key", unknown_key(key, known)) for key in unknown]
        if unknown:
            details = zip(unknown, says, strict=True)
            raise ValidationError.from_exception_data(
                cls.__name__, [{"type": why, "loc": (key,), "input": key} for key, why in details]
            )
        return content


def unknown_key(name: str, known: Iterable[str]) -> str:
    """What to say of a key that is none of `known`: the nearest of them, or why there is no such key."""
    if name in REFUSED:
        return f"refused: {REFUSED[name]}"
    return "unknown key; " + (nearest(name, known).strip() or f"known here: {', '.join(known)}")


SectionT = TypeVar("SectionT", bound=Section)


class Mistake(NamedTuple):
    """Something wrong at a key; the empty path is that of the whole file."""

    path: tuple[str, ...]
    says: str


def refusal(source: str, mistakes: Sequence[Mistake]) -> UserError:
    """The first mistake as one line for a person, with the number of others."""
    first, *others = dict.fromkeys(mistakes)
    more = f" (and {len(others)} more)" if others else ""
    end = "" if first.says[-1] == "?" else "."
    # A check of the whole file names its keys itself.
    key = f"{'.'.join(first.path)}: " if first.path else ""
    return UserError(f"{source}: {key}{first.says}{more}{end}")


def validate(
    model: type[SectionT], content: dict[str, Any], missing: str = MISSING
) -> tuple[SectionT | None, list[Mistake]]:
    """`content` as a `model`, or what is wrong with it; `missing` says where to find a missing key."""
    try:
        return model.model_validate(content), []
    except ValidationError as error:
        return None, [_mistake(problem, missing) for problem in error.errors()]


def _mistake(problem: ErrorDetails, missing: str) -> Mistake:
    tags = {
        "addition",
        "arithmetic",
        "code",
        "hub",
        "local",
        "math_archive",
        "reasoning_gym",
        "tiny",
    }  # pydantic adds a union's tag to the path
    loc = [str(part) for part in problem["loc"] if not str(part).startswith("(")]  # those of reward.terms
    path = tuple(part for at, part in enumerate(loc) if not (part in tags and at == 1))
    kind, found = problem["type"], problem["input"]
    if kind.startswith("union_tag"):
        path = (*path, "source")
    if kind in ("missing", "union_tag_not_found"):
        return Mistake(path, f"missing; {missing}")
    if kind == "union_tag_invalid":
        expected = problem["ctx"]["expected_tags"]
        return Mistake(path, f"expected one of {expected}, found {found['source']!r}")
    if isinstance(found, str) and found in REFUSED_VALUES:
        return Mistake(path, f"{found} is refused: {REFUSED_VALUES[found]}")
    message = problem["msg"].removeprefix("Value error, ")
    # Where a validator of a whole section speaks, its message names the key itself.
    if kind == "unknown_key" or isinstance(found, dict | Section):
        return Mistake(path, message)
    return Mistake(path, f"{message[0].lower()}{message[1:]}, found {found!r}")
