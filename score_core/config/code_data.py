"""The section `data` of programming tasks: sets of problems with tests, each in its own published format."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from score_core.config.section import Natural, Section
from score_core.config.splitting import Sizes


class CodeSet(Section):
    """One set, on the hub or in a local folder; the columns are those of its format."""

    format: Literal["mbpp", "humaneval"]  # score_core/data/code_formats.py
    path: str  # e.g. "google-research-datasets/mbpp", or a folder of <split>.jsonl or <split>.parquet
    name: str | None  # the hub's "configuration" or "subset"
    revision: str | None  # a commit hash reproduces; null: `path` is a local folder
    split: str  # one, or several as `train+validation`
    fixture: str | None  # a small local folder in the same format, which smoke runs read instead

    def smoke(self) -> "CodeSet":
        """What a smoke run reads."""
        return self.model_copy(update={"path": self.fixture or self.path, "revision": None})

    @property
    def folder(self) -> str | None:
        """The local folder that it is in; None on the hub."""
        return self.path if self.revision is None else None


class CodeData(Section):
    """Problems to train on, others to test on, and programs to repair (MBPP-R)."""

    source: Literal["code"]
    train: CodeSet
    test: CodeSet
    repair: CodeSet | None  # evaluated beside the test split; null leaves it out
    # A JSONL file of {"id", "program"}, wrong programs for problems of `repair`; null: their solutions with
    # one operator or number changed so that a test fails.
    wrong_programs: str | None
    shown_tests: (
        Natural  # how many tests an MBPP problem shows, as the name to define stands in no other place
    )
    validation_share: Annotated[float, Field(gt=0, lt=1)]  # as of other sources
    conflicting_answers: Literal["refuse", "drop"]
    sizes: Sizes

    @property
    def sets(self) -> dict[str, CodeSet]:
        """The sets there are, by their keys."""
        sets = {"train": self.train, "test": self.test, "repair": self.repair}
        return {key: one for key, one in sets.items() if one is not None}

    @property
    def local(self) -> dict[str, str]:
        """The local files and folders that are read, by their keys."""
        found = {f"{key}.path": one.folder for key, one in self.sets.items()}
        found["wrong_programs"] = self.wrong_programs
        return {key: path for key, path in found.items() if path is not None}

    def smoke(self) -> "CodeData":
        """What a smoke run reads: the fixtures."""
        sets = {key: one.smoke() for key, one in self.sets.items()}
        return self.model_copy(update={**sets, "wrong_programs": None})

    @model_validator(mode="after")
    def _parts_fit(self) -> "CodeData":
        for key, one in self.sets.items():
            if one.revision is None and one.name is not None:
                raise ValueError(
                    f"{key}.name: a local folder has none; set null, or {key}.revision for the hub"
                )
        if self.wrong_programs is not None and self.repair is None:
            raise ValueError("wrong_programs: there is nothing to repair; set repair, or null")
        if self.repair is not None and self.repair.format != "mbpp":
            raise ValueError(f"repair.format: programs are repaired of mbpp, not {self.repair.format}")
        return self
