"""The section `reward`: how attempts are judged right or wrong, and what training pays for them.

Names are plain text here: what they may be stands in one place each, the dicts `EXTRACTORS` and
`MATCHERS` of `score_core/answers/` and `TERMS` of `score_core/rewards/`, which refuse unknown ones.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

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
    # Also what the extractors `marker`, `math_final_answer` and `gsm8k_hash` look for.
    marker: Annotated[str, Field(min_length=1)]
    # CPU time of one comparison, or of a program with all of its tests, when data is prepared and models are
    # evaluated; and in training, where all processes wait for the slowest.
    seconds: Positive
    training_seconds: Positive
    # Where `code_tests` runs programs that a model has written. required: in a sandbox, or the stage refuses.
    # none: as this user, within limits of time and memory; they may read and write what the user may.
    sandbox: Literal["required", "none"]
    terms: Annotated[tuple[Term, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _tests_are_run(self) -> "Reward":
        if self.matcher != "code_tests" and any(term.name == "code_share" for term in self.terms):
            raise ValueError(
                f"terms: code_share is the share of tests passed, and matcher: {self.matcher} runs none; set "
                "matcher: code_tests or take another term"
            )
        return self


def named(table: Mapping[str, Any], name: str, key: str, settings: Section) -> Any:
    """What `name` stands for in `table`: a function as it is, or a class made with `settings`.

    Raises:
        UserError: it stands for nothing; the message names the parameter `key` and the nearest name.
    """
    if name not in table:
        raise unknown_name(key, name, table)
    found = table[name]
    return found(settings) if isinstance(found, type) else found
