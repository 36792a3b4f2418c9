"""The section `data`: where problems come from, and how many each split holds."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from score_core.config.code_data import CodeData
from score_core.config.section import Probability, Section
from score_core.config.splitting import Sizes


class GeneratedData(Section):
    """What generated problems have in common: as many as are asked for, and no file or hub."""

    if TYPE_CHECKING:
        sizes: Sizes  # which each declares last, as it is written down

    @model_validator(mode="after")
    def _sizes_are_given(self) -> "GeneratedData":
        for name, size in self.sizes.model_dump().items():
            if size is None:
                raise ValueError(
                    f"sizes.{name}: expected a number, since problems are made, and null takes all there are"
                )
        return self


class AdditionData(GeneratedData):
    """Sums of two numbers; the embedded default (see `score_core/embedded/addition.py`)."""

    source: Literal["addition"]
    digits: Annotated[int, Field(ge=2, le=9)]
    nines: Probability  # probability that a column's two digits are made to add up to 9
    sizes: Sizes


class ArithmeticData(GeneratedData):
    """Exercises as `What is 40213 - 59786?` (see `score_core/embedded/arithmetic.py`)."""

    source: Literal["arithmetic"]
    operation: Literal["addition", "subtraction", "multiplication"]
    operands: Annotated[int, Field(ge=2, le=8)]
    digits: Annotated[int, Field(ge=1, le=12)]  # of each operand
    sizes: Sizes


class GymData(GeneratedData):
    """Exercises of the library reasoning_gym, installed apart (see `score_core/data/gym_sets.py`)."""

    source: Literal["reasoning_gym"]
    dataset: str  # one of the library's, such as "number_sequence"
    options: dict[str, Any]  # of that data set, such as {max_value: 50}
    sizes: Sizes


class Columns(Section):
    """Names of the columns to read; where `id` is null, ids are made from the problems' hashes."""

    id: str | None
    problem: str
    answer: str  # in parquet and JSONL also of lists, of several gold answers each

    @model_validator(mode="after")
    def _answers_have_their_own(self) -> "Columns":
        if self.problem == self.answer:
            raise ValueError(
                f"answer: {self.answer} is the column of the problems too, each its own answer then; "
                "name the column that holds the gold answers"
            )
        return self


class FileData(Section):
    """What the hub and the local source have in common."""

    columns: Columns
    train_split: str
    test_split: str
    # The share of training problems set aside for validation, chosen by the problem's hash.
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    # Of one problem in several rows of a split, with different gold answers: drop leaves it out.
    conflicting_answers: Literal["refuse", "drop"]
    sizes: Sizes


class LocalData(FileData):
    """A folder that `datasets` saved (a DatasetDict, or a Dataset in a folder for each split), or one holding
    `<split>.parquet`, `.jsonl` or `.csv`.
    """

    source: Literal["local"]
    path: str


class HubSet(Section):
    """A data set on the Hugging Face hub, pinned by revision."""

    path: str  # e.g. "HuggingFaceH4/MATH-500"
    name: str | None  # the hub's "configuration" or "subset"
    revision: str  # a commit hash reproduces; a branch name does not


class HubData(FileData):
    """A data set on the Hugging Face hub, pinned by revision."""

    source: Literal["hub"]
    path: str  # e.g. "openai/gsm8k"
    name: str | None  # the hub's "configuration" or "subset"
    revision: str  # a commit hash reproduces; a branch name does not
    # The set that `test_split` is of, with the same columns; its problems are not trained on. null: this one.
    test_set: HubSet | None
    fixture: str | None  # a small local folder in the same format, which smoke runs read instead

    def smoke(self) -> LocalData:
        """What a smoke run reads: the same columns and splits of `fixture`."""
        assert self.fixture is not None  # `Config` refuses a smoke run without
        shared = {key: getattr(self, key) for key in FileData.model_fields}
        return LocalData(source="local", path=self.fixture, **shared)


class ArchiveData(Section):
    """MATH as its authors packed it, in `MATH/{train,test}/<subject>/<n>.json` (arXiv 2103.03874).

    Its columns are `problem`, `solution`, whose box is the gold answer, and for `evaluation.by` `level` and
    `subject`.
    """

    source: Literal["math_archive"]
    path: str  # the unpacked folder, its tar file, or the address that serves one
    fixture: str | None  # a small one in the same layout, which smoke runs read instead
    validation_share: Annotated[float, Field(gt=0, lt=1)]  # as of other sources
    conflicting_answers: Literal["refuse", "drop"]
    sizes: Sizes

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return not self.path.startswith(("http://", "https://"))

    def smoke(self) -> "ArchiveData":
        """What a smoke run reads."""
        return self.model_copy(update={"path": self.fixture or self.path})


Data = Annotated[
    AdditionData | ArchiveData | ArithmeticData | CodeData | GymData | HubData | LocalData,
    Field(discriminator="source"),
]
