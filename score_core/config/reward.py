"""The section `reward`: how attempts are judged right or wrong, and what training pays for them.

Names are plain text here: what they may be stands in one place each, the dicts `EXTRACTORS` and
`MATCHERS` of `score_core/answers/` and `TERMS` of `score_core/rewards/`, which refuse unknown ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from score_core.config.section import Count, Positive, Section
from score_core.errors import unknown_name

BASE = Path("models/base")  # what the pipeline starts from: as a judge it is always up to date


class Term(Section):
    """One term of the training reward."""

    name: str  # one of `TERMS`, score_core/rewards/terms.py, or where another stands: package.module:function
    weight: Annotated[float, Field(allow_inf_nan=False)]  # what it is multiplied by; negative for a penalty


class Judge(Section):
    """A model that is shown a gold answer and asked whether an attempt's is the same."""

    # models/base, a model folder at or below watched.model, or a name on the hub
    path: Annotated[str, Field(min_length=1)]
    revision: str | None  # of the hub's; null for a folder
    dtype: Literal["float32", "bfloat16"]  # what it computes in
    prompt: str  # a file with {problem}, {gold} and {answer}, which asks for yes or no
    template_options: dict[str, Any]  # variables of its chat template, such as enable_thinking


class JudgeTerm(Term):
    """The term `gold_judge`."""

    judge: Judge


def _kind(term: Any) -> str:
    name = term.get("name") if isinstance(term, dict) else getattr(term, "name", None)
    return "(judge)" if name == "gold_judge" else "(term)"


# Pydantic adds the tags to the paths of mistakes, from which `section.py` takes them.
AnyTerm = Annotated[
    Annotated[JudgeTerm, Tag("(judge)")] | Annotated[Term, Tag("(term)")], Discriminator(_kind)
]


class SelfJudge(Section):
    """Ratings of a prompt's answers by the policy that gave them, which is shown them in pairs (SR-R1)."""

    weight: Annotated[float, Field(allow_inf_nan=False)]  # of the scaled rating, as of a term
    prompt: str  # a file with {problem}, {first} and {second}; asks for a last line `Verdict: first`
    max_new_tokens: Count  # of a reply; what is cut off has no verdict
    temperature: Positive
    both_orders: bool  # each pair is judged twice, so that a liking for one place cancels out
    ties: bool  # `Verdict: tie` is a verdict, and not one that cannot be read
    # RATINGS of score_core/rewards/tournament.py; elo_sequential depends on the order of the games.
    rating: Literal["elo_sequential", "elo", "win_rate", "bradley_terry"]
    top: Positive  # a prompt's ratings are scaled to 0 up to this, half of it where all are equal


class Reward(Section):
    """An extractor and a matcher decide what is right; the terms' weighted sum is the training reward.

    With `self_judge` training adds what the policy itself holds of its answers. Evaluation never asks it.
    """

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
    terms: Annotated[tuple[AnyTerm, ...], Field(min_length=1)]
    self_judge: SelfJudge | None

    @property
    def read(self) -> dict[str, Path]:
        """The files and folders that terms read, by the keys that name them."""
        found = {}
        for at, term in enumerate(self.terms):
            if isinstance(term, JudgeTerm):
                key = f"reward.terms.{at}.judge"
                found[f"{key}.prompt"] = Path(term.judge.prompt)
                if term.judge.revision is None:
                    found[f"{key}.path"] = Path(term.judge.path)
        if self.self_judge is not None:
            found["reward.self_judge.prompt"] = Path(self.self_judge.prompt)
        return found

    @property
    def evaluated(self) -> tuple[Term, ...]:
        """The terms of evaluation's reward: a model that judges is heard in training only."""
        return tuple(term for term in self.terms if not isinstance(term, JudgeTerm))

    @model_validator(mode="after")
    def _tests_are_run(self) -> "Reward":
        if self.matcher != "code_tests" and any(term.name == "code_share" for term in self.terms):
            raise ValueError(
                f"terms: code_share is the share of tests passed, and matcher: {self.matcher} runs none; set "
                "matcher: code_tests or take another term"
            )
        return self

    @model_validator(mode="after")
    def _judges_do_not_evaluate(self) -> "Reward":
        if not self.evaluated:
            raise ValueError(
                "terms: gold_judge is training's alone, and evaluation reports a reward, too; add a term "
                "that needs no model, such as {name: match, weight: 1.0}; with weight: 0 training ignores it"
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
