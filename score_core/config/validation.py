"""What is wrong with parameters, found by pydantic, as one line for a person."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from score_core.config.section import Section
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

MISSING = (
    "copy it from conf/base.yaml or from a profile in conf/profile/, or compose the file anew with "
    "`dvc exp run -S profile=NAME`"
)

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True)
class Mistake:
    """Something wrong at a key; the empty path is that of the whole file."""

    path: tuple[str, ...]
    says: str
    unknown: bool = False


def refusal(source: str, mistakes: Sequence[Mistake]) -> UserError:
    """The first mistake as one line for a person, with the number of others."""
    # An unknown key explains the missing one it was meant to be, so it comes first.
    first, *others = sorted(dict.fromkeys(mistakes), key=lambda mistake: not mistake.unknown)
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
        return None, [_mistake(model, problem, content, missing) for problem in error.errors()]


def _mistake(model: type[Section], problem: Any, content: dict[str, Any], missing: str) -> Mistake:
    tags = {"addition", "hub", "local", "tiny"}  # pydantic adds a union's tag to the path
    path = tuple(str(part) for at, part in enumerate(problem["loc"]) if not (part in tags and at == 1))
    if problem["type"] == "extra_forbidden":
        section = _section_model(model, path[:-1], content)
        return unknown_key(path, list(section.model_fields) if section else [])
    if problem["type"] == "union_tag_not_found":
        path = (*path, "source")
    if problem["type"] in ("missing", "union_tag_not_found"):
        return Mistake(path, f"missing; {missing}")
    found = problem["input"]
    if problem["type"] == "union_tag_invalid":
        expected = problem["ctx"]["expected_tags"]
        return Mistake((*path, "source"), f"expected one of {expected}, found {found['source']!r}")
    if isinstance(found, str) and found in REFUSED_VALUES:
        return Mistake(path, f"{found} is refused: {REFUSED_VALUES[found]}")
    message = problem["msg"].removeprefix("Value error, ")
    # Where a validator of a whole section speaks, its message names the key itself.
    if isinstance(found, dict | Section):
        return Mistake(path, message)
    return Mistake(path, f"{message[0].lower()}{message[1:]}, found {found!r}")


def unknown_key(path: tuple[str, ...], known: Sequence[str]) -> Mistake:
    """A key that is none of `known`, with the nearest of them."""
    name = path[-1]
    if name in REFUSED:
        return Mistake(path, f"refused: {REFUSED[name]}", unknown=True)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return Mistake(path, f"unknown key; {hint}", unknown=True)


def _section_model(root: type[Section], path: Sequence[str], content: Any) -> type[Section] | None:
    """The model that describes the section at `path`, by the annotations of its parents."""
    model = root
    value: Any = content
    for part in path:
        if isinstance(value, list):  # whose items are all of one model, found already
            value = value[int(part)]
            continue
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
