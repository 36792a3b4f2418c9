"""What is wrong with parameters, found by pydantic, as one line for a person."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from score_core.config.section import Section
from score_core.errors import UserError

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


def _mistake(problem: Any, missing: str) -> Mistake:
    tags = {"addition", "hub", "local", "tiny"}  # pydantic adds a union's tag to the path
    path = tuple(str(part) for at, part in enumerate(problem["loc"]) if not (part in tags and at == 1))
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
