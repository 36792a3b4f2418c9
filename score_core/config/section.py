"""What every section of the configuration is: closed, immutable, complete. And the numbers in them."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from score_core.errors import nearest

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

# Keys people bring from other trainers, and why there is no such key here.
REFUSED = {
    **dict.fromkeys(
        ("top_p", "top_k"),
        "training samples from the whole distribution, since the scored distribution must be the "
        "sampled one; remove the key (temperature is the one setting)",
    ),
    "trust_remote_code": "code from a hub is never run; use a model that transformers itself supports",
}


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
