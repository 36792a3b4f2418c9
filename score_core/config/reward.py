"""The section `reward`: how attempts are judged right or wrong, and what training pays for them.

Names are plain text here: what they may be stands in one place each, the dicts `EXTRACTORS` and
`MATCHERS` of `score_core/answers/` and `TERMS` of `score_core/rewards/`, which refuse unknown ones.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from score_core.config.section import Positive, Section
from score_core.errors import unknown_name


class Term(Section):
    """One term of the training reward."""

    name: str  # one of `TERMS`, score_core/rewards/terms.py, or where another stands: package.module:function
    weight: Annotated[float, Field(allow_inf_nan=False)]  # what it is multiplied by; negative for a penalty


class Reward(Section):
    """An extractor and a matcher decide what is right; the terms' weighted sum is the training reward."""

    extractor: str  # one of `EXTRACTORS`, score_core/answers/extractors.py
    matcher: str  # one of `MATCHERS`, score_core/answers/matchers.py
    mode: Literal["default", "final"]  # the whole text is read, or only what follows the last marker
    marker: Annotated[
        str, Field(min_length=1)
    ]  # also what `marker`, `math_final_answer`, `gsm8k_hash` look for
    seconds: Positive  # CPU time of one comparison when data is prepared and models are evaluated
    training_seconds: Positive  # the same in training, where all processes wait for the slowest
    terms: Annotated[tuple[Term, ...], Field(min_length=1)]


def named(table: Mapping[str, Any], name: str, key: str, settings: Section) -> Any:
    """What `name` stands for in `table`: a function as it is, or a class made with `settings`.

    Raises:
        UserError: it stands for nothing; the message names the parameter `key` and the nearest name.
    """
    if name not in table:
        raise unknown_name(key, name, table)
    found = table[name]
    return found(settings) if isinstance(found, type) else found
