"""What every section of the configuration is: closed, immutable, complete. And the numbers in them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know.

    No key has a default here: those of `params.yaml` stand in `conf/`, those of `runtime.yaml` in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
