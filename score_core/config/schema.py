"""`Config`, the whole of `params.yaml`, and its smaller sections.

A section documents each key where it declares it, and refuses combinations that cannot mean what they say,
with the reason and the remedy. The larger ones stand beside this file: data, model, reward, training.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from score_core.config.code_data import CodeData
from score_core.config.data import AdditionData, ArchiveData, Data, FileData, HubData, LocalData
from score_core.config.model import AdditionModel, FileModel, HubModel, LocalModel, Lora, Model
from score_core.config.reward import BASE, Reward
from score_core.config.section import Count, Natural, NonNegative, Section
from score_core.config.training import Sampling, Training
from score_core.errors import UserError, nearest

# More than any model's context; where one sets no limit of its own, memory would be asked for all of it.
Tokens = Annotated[int, Field(ge=1, le=2**24)]


class Conversation(Section):
    """What is said in a dialogue; the same in training and in evaluation."""

    folder: str  # holds the files below; the pipeline watches it for changes
    system: str | None  # a file, or null for none
    first: str  # a file with {problem}, the first turn
    retry: str  # a file, the instruction before every later attempt; never says who was right
    # Files, or null; for dialogues in which the model judges each attempt, and revises where it says "wrong".
    verify: str | None  # asks whether the answer is right; the last line is to be `right` or `wrong`
    revise: str | None  # asks for another one
    few_shot: str | None  # a JSONL file of {"problem", "answer"} shown as earlier turns
    # Passed to the chat template. One that prints the date says 26 Jul 2024, or what `date_string` says here.
    template_options: dict[str, bool | str | int]
    max_prompt_tokens: Tokens  # of [x]; longer ones are refused before a model is loaded
    max_new_tokens: Tokens  # of one attempt
    max_context_tokens: Tokens | None  # of a whole dialogue; null: the model's own limit

    @field_validator("folder", mode="before")
    @classmethod
    def _folder_is_named(cls, folder: object) -> object:
        # Of null DVC says "unexpected error" alone.
        if folder is None:
            raise ValueError(
                "expected the folder that holds the prompt files, which DVC watches for changes; name it"
            )
        return folder

    @field_validator("template_options")
    @classmethod
    def _no_older_truths(cls, options: dict[str, bool | str | int]) -> dict[str, bool | str | int]:
        for key, value in options.items():
            # A template would take any of these words for true.
            if str(value).lower() in ("yes", "no", "on", "off"):
                raise ValueError(f"{key}: {value} is a word in YAML 1.2; write true or false")
        return options

    @model_validator(mode="after")
    def _files_are_watched(self) -> "Conversation":
        for key in ("system", "first", "retry", "verify", "revise", "few_shot"):
            file = getattr(self, key)
            if file is not None and Path(self.folder) not in Path(file).parents:
                raise ValueError(
                    f"{key}: {file} is not in folder: {self.folder}, the one place that is watched for "
                    "changes; move the file there or point folder at it"
                )
        return self


class Watched(Section):
    """Folders whose contents make data and models stale; of a local source its path, or one above."""

    data: str
    model: str  # also of a local judge


class Evaluation(Section):
    """Evaluation of a model on the test split."""

    attempts: Annotated[int, Field(ge=2, le=10)]
    verifies: bool  # the model judges each attempt, and revises only where it says "wrong"
    temperature: NonNegative  # 0 is greedy
    top_p: Annotated[float, Field(gt=0, le=1)]  # with a temperature only
    samples: Count  # dialogues a problem, over which accuracies are averaged (Avg@k)
    sampling: Sampling  # as in `training`
    max_new_tokens: Tokens | None  # of one attempt; null: as many as in training
    batch_size: Count  # dialogues side by side
    # Columns of the data by whose values accuracies are also reported, e.g. [level, subject].
    by: tuple[Annotated[str, Field(min_length=1)], ...]

    @classmethod
    def greedy(cls, attempts: int, verifies: bool, sampling: Sampling, batch_size: int) -> "Evaluation":
        """One greedy dialogue a problem, as validation has it."""
        asked = {"attempts": attempts, "verifies": verifies, "sampling": sampling, "batch_size": batch_size}
        greedy = {"temperature": 0.0, "top_p": 1.0, "samples": 1, "max_new_tokens": None, "by": ()}
        return cls.model_validate(asked | greedy)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Evaluation":
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p < 1 does nothing in greedy decoding; set a temperature or top_p: 1")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples: {self.samples} greedy dialogues are the same one; set a temperature or samples: 1"
            )
        return self


class Report(Section):
    """What the report shows."""

    title: str
    samples: Natural  # answers shown of each kind


class Config(Section):
    """The whole configuration of a run."""

    profile: str
    smoke: bool  # a tiny model and a fixture of data; conf/smoke/ has the toy sizes
    seed: Natural
    data: Data
    model: Model
    watched: Watched
    lora: Lora | None
    conversation: Conversation
    reward: Reward
    evaluation: Evaluation
    # By the sections' names, each with what `training` shares; an instance of its algorithm's settings.
    stages: dict[str, SerializeAsAny[Training]]
    report: Report

    def stage(self, name: str) -> Training:
        """The settings of a stage of training.

        Raises:
            UserError: there is no such stage.
        """
        if name not in self.stages:
            hint, known = nearest(name, self.stages), ", ".join(self.stages) or "none"
            raise UserError(f"{name}: no such stage of training in params.yaml; {hint}It has {known}.")
        return self.stages[name]

    @property
    def evaluated_conversation(self) -> Conversation:
        """What is said in evaluation: `conversation`, with the length that `evaluation` asks for."""
        most = self.evaluation.max_new_tokens or self.conversation.max_new_tokens
        return self.conversation.model_copy(update={"max_new_tokens": most})

    @property
    def used_data(self) -> Data:
        """The data that this run reads: `data`, or what a smoke run takes instead."""
        if self.smoke and isinstance(self.data, ArchiveData | CodeData | HubData):
            return self.data.smoke()
        return self.data

    @property
    def used_model(self) -> Model:
        """The model that this run starts from: `model`, or what a smoke run builds; a local one stays."""
        if self.smoke and isinstance(self.model, HubModel | AdditionModel):
            return self.model.smoke()
        return self.model

    @property
    def dtype(self) -> Literal["float32", "bfloat16"]:
        """What is computed in, and frozen weights are held in; float32 for embedded and tiny models."""
        return self.used_model.dtype if isinstance(self.used_model, FileModel) else "float32"

    @property
    def quantize(self) -> Literal["nf4"] | None:
        """How weights are packed, if they are."""
        return self.used_model.quantize if isinstance(self.used_model, FileModel) else None

    def mixed_precision(self, strategy: str) -> bool:
        """Whether training computes in bf16 with weights in float32.

        A bf16 weight has 8 bits: a step of 1e-5 of its size is rounded away. So whole models that compute in
        bf16 are trained in float32. Adapters are float32 in any case, and what is under them is frozen; there
        only the strategies that split weights want to be told.
        """
        split = strategy in ("zero2", "zero3", "fsdp2")
        return self.dtype == "bfloat16" and (self.lora is None or split)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if isinstance(self.model, AdditionModel) and not isinstance(self.data, AdditionData):
            raise ValueError(
                "model.source: addition only knows sums, and data.source is "
                f"{self.data.source}; use a hub, local or tiny model"
            )
        if isinstance(self.model, FileModel) and self.model.quantize is not None and self.lora is None:
            raise ValueError(
                f"model.quantize: {self.model.quantize} weights are not trained themselves; set lora, "
                "whose adapter is, or quantize: null"
            )
        local: dict[str, str] = {}
        if isinstance(self.data, LocalData) or (isinstance(self.data, ArchiveData) and self.data.local):
            local["data"] = self.data.path
        if isinstance(self.model, LocalModel):
            local["model"] = self.model.path
        for name, place in local.items():
            watched = Path(getattr(self.watched, name))
            if watched not in (path := Path(place), *path.parents):
                raise ValueError(
                    f"watched.{name}: {watched} does not hold {name}.path: {path}, whose changes would go "
                    f"unnoticed; set watched.{name}: {path}"
                )
        if isinstance(self.data, CodeData):
            for key, found in self.data.local.items():
                if (watched := Path(self.watched.data)) not in (path := Path(found), *path.parents):
                    raise ValueError(
                        f"watched.data: {watched} does not hold data.{key}: {path}, whose changes would go "
                        "unnoticed; set watched.data to a folder that holds all local sets"
                    )
        folder = self.conversation.folder
        for key, path in self.reward.read.items():
            if key.endswith(".prompt") and Path(folder) not in path.parents:
                raise ValueError(
                    f"{key}: {path} is not in conversation.folder: {folder}, and its changes would go "
                    "unnoticed; copy it there"
                )
            judges = not key.endswith(".prompt") and path != BASE
            if judges and Path(self.watched.model) not in (path, *path.parents):
                place = f": {path}" if "model" not in local else " to a folder that holds it and model.path"
                raise ValueError(
                    f"{key}: {path} is not in watched.model: {self.watched.model}, and its changes would go "
                    f"unnoticed; set watched.model{place}"
                )
        for name, stage in self.stages.items():
            if self.reward.self_judge is not None and stage.samples_per_prompt == 1:
                raise ValueError(
                    f"reward.self_judge: compares a prompt's answers, and {name}.samples_per_prompt is 1; "
                    "sample at least 2, or set reward.self_judge: null"
                )
        read: dict[str, str | None] = {}
        if isinstance(self.data, HubData | ArchiveData):
            read = {"data": self.data.fixture}
        elif isinstance(self.data, CodeData):
            sets = self.data.sets.items()
            read = {f"data.{key}": one.fixture for key, one in sets if one.revision is not None}
        for key, fixture in read.items():
            if self.smoke and fixture is None:
                raise ValueError(
                    f"{key}.fixture: a smoke run of data from elsewhere needs it; name a local folder"
                )
        if self.evaluation.verifies and None in (self.conversation.verify, self.conversation.revise):
            raise ValueError(
                "evaluation.verifies: needs the prompts conversation.verify and conversation.revise, and one "
                "is null; name their files, or set evaluation.verifies: false"
            )
        if self.evaluation.by and not isinstance(self.data, ArchiveData | FileData):
            raise ValueError(
                f"evaluation.by: problems of data.source: {self.data.source} have no columns; set []"
            )
        return self
