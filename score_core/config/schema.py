"""Every parameter, one model a section of `params.yaml`, documented where it is declared.

The models are frozen, refuse unknown keys, and refuse combinations that cannot mean what they say,
with the reason and the remedy. Symbols (`alpha`, `beta1`, `beta2`, `gamma`) are those of the paper,
arXiv 2409.12917.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# ---------------------------------------------------------------------------------------- data


class Sizes(Section):
    """How many problems each split holds; null takes all there are."""

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class AdditionData(Section):
    """Sums of two numbers, generated; the embedded default (see `score_core/embedded/addition.py`)."""

    source: Literal["addition"]
    digits: Annotated[int, Field(ge=2, le=9)] = 5
    nines: Probability = 0.5  # probability that a column's two digits are made to add up to 9
    sizes: Sizes = Sizes(train=20_000, validation=1_000, test=2_000)

    @model_validator(mode="after")
    def _sizes_are_given(self) -> "AdditionData":
        for name, size in self.sizes.model_dump().items():
            if size is None:
                raise ValueError(
                    f"sizes.{name}: expected a number, since sums are made, and null takes all there are"
                )
        return self


class Columns(Section):
    """Names of the columns to read; a missing `id` is made from the problem's hash."""

    id: str | None = None
    problem: str = "problem"
    answer: str = "answer"


class FileData(Section):
    """What the hub and the local source have in common."""

    columns: Columns = Columns()
    train_split: str = "train"
    test_split: str = "test"
    # The share of training problems set aside for validation, chosen by the problem's hash.
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    sizes: Sizes = Sizes()


class HubData(FileData):
    """A data set on the Hugging Face hub, pinned by revision."""

    source: Literal["hub"]
    path: str  # e.g. "openai/gsm8k"
    name: str | None = None  # the hub's "configuration" or "subset"
    revision: str = "main"  # a commit hash reproduces; a branch name does not
    fixture: str | None = None  # a small local stand-in in the same format, for smoke runs


class LocalData(FileData):
    """A folder saved by `datasets`, or one holding `<split>.parquet`, `.jsonl` or `.csv`."""

    source: Literal["local"]
    path: str


Data = Annotated[AdditionData | HubData | LocalData, Field(discriminator="source")]


# --------------------------------------------------------------------------------------- model


class AdditionModel(Section):
    """The embedded base model: a small Qwen2 taught on sums (see `score_core/embedded/addition_model.py`)."""

    source: Literal["addition"]
    hidden_size: Count = 64
    layers: Count = 2
    heads: Count = 8
    feed_forward: Count = 192
    steps: Count = 1000
    batch_size: Count = 128
    learning_rate: Positive = 6e-3
    carry_guess: Probability = 0.4  # in first answers, P(carry out = 1) of a column that adds up to 9
    fix_share: Probability = 0.25  # chats whose second turn asks to "fix" and is answered rightly
    spoil: Probability = 0.05  # "check" chats whose second answer spoils one digit
    leak: Probability = 0.0  # "check" chats whose second answer is right whatever the first was


class FileModel(Section):
    """What the hub and the local source have in common: how weights are held in memory."""

    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    quantize: Literal["nf4"] | None = None  # 4-bit weights under an adapter; needs a GPU, see docs/scaling.md


class HubModel(FileModel):
    """A causal language model on the Hugging Face hub, pinned by revision."""

    source: Literal["hub"]
    path: str  # e.g. "Qwen/Qwen3-0.6B"
    revision: str = "main"
    family: Literal["qwen2", "qwen3", "llama"]  # the architecture of a smoke run's tiny model


class LocalModel(FileModel):
    """A transformers model folder: config, safetensors, tokenizer with a chat template."""

    source: Literal["local"]
    path: str


class TinyModel(Section):
    """A randomly initialised model of an architecture family; what smoke runs train."""

    source: Literal["tiny"]
    family: Literal["qwen2", "qwen3", "llama"]


Model = Annotated[AdditionModel | HubModel | LocalModel | TinyModel, Field(discriminator="source")]


class Lora(Section):
    """Low-rank adapters; the reference is then the model with its adapter switched off."""

    rank: Count = 16
    alpha: Count = 16
    dropout: Probability = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"


# ------------------------------------------------------------------------- conversation, reward


class Conversation(Section):
    """What is said in a dialogue; the same in training and in evaluation."""

    folder: str | None = None  # holds the files below; the pipeline watches it for changes
    system: str | None = None  # a file, or null for none
    first: str  # a file with {problem}, the first turn
    retry: str  # a file, the instruction before every later attempt; never says who was right
    few_shot: str | None = None  # a JSONL file of {"problem", "answer"} shown as earlier turns
    template_options: dict[str, bool | str | int] = {}  # passed to the chat template
    max_prompt_tokens: Count = 1024  # of [x]; a longer problem is refused when data is prepared
    max_new_tokens: Count = 512  # of one attempt
    max_context_tokens: Count | None = None  # of a whole dialogue; null: the model's own limit

    @model_validator(mode="after")
    def _files_are_watched(self) -> "Conversation":
        for key in ("system", "first", "retry", "few_shot"):
            file = getattr(self, key)
            if self.folder is not None and file is not None and Path(self.folder) not in Path(file).parents:
                raise ValueError(
                    f"{key}: {file} is not in folder: {self.folder}, the one place that is watched for "
                    "changes; move the file there or point folder at it"
                )
        return self


class Reward(Section):
    """How an attempt is judged: an extractor, a matcher, and what a training reward adds to them."""

    extractor: Literal["last_integer", "gsm8k_hash", "math_final_answer", "identity"]
    matcher: Literal["integer", "math", "exact"]
    shape: Literal["match", "format_and_match", "strict_format_and_match"] = "match"
    marker: str = "Final Answer: The final answer is"  # what `math_final_answer` looks for
    seconds: Positive = 5.0  # the time limit of one comparison


class Evaluation(Section):
    """Evaluation of a model on the test split."""

    attempts: Annotated[int, Field(ge=2, le=10)] = 2
    temperature: NonNegative = 0.0  # 0 is greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # with a temperature only
    batch_size: Count = 256

    @model_validator(mode="after")
    def _top_p_needs_temperature(self) -> "Evaluation":
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p < 1 does nothing in greedy decoding; set a temperature or top_p: 1")
        return self


# ------------------------------------------------------------------------------------- training

Baseline = Literal[
    "leave_one_out",
    "leave_one_out_given_first",
    "group_mean",
    "group_standardised",
    "moving_average",
    "none",
]
KLEstimator = Literal["exact", "k1_in_reward", "k2_in_loss", "k3_in_loss"]
LengthAggregation = Literal["sequence_sum", "sequence_mean", "token_mean", "constant"]


class Stage(Section):
    """What both training stages have in common."""

    steps: Count = 80  # optimiser steps
    attempts: Annotated[int, Field(ge=2, le=10)] = 2
    prompts_per_step: Count = 64
    samples_per_prompt: Count = 8  # K
    temperature: Positive = 1.0

    learning_rate: Positive = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    final_learning_rate: Probability = 0.3  # as a share of learning_rate; the decay is linear
    adam_betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0

    beta1: NonNegative = 0.01  # the KL's coefficient at ordinary attempts
    kl_estimator: KLEstimator = "exact"
    baseline: Baseline = "leave_one_out"  # of attempt 1
    baseline_later: Baseline = "leave_one_out_given_first"  # of every later attempt
    length_aggregation: LengthAggregation = "sequence_sum"
    offline_first_attempts: Probability = 0.0  # share of prompts whose y1 comes from the base model

    validate_every: Count = 10  # steps between evaluations on validation problems
    validation_problems: Count = 500
    select: Literal["last", "validation_accuracy", "training_reward"] = "last"  # weights to keep

    @model_validator(mode="after")
    def _groups_make_sense(self) -> "Stage":
        if self.baseline == "leave_one_out_given_first":
            raise ValueError(
                "baseline: leave_one_out_given_first conditions on the first attempt's outcome, which for "
                "attempt 1 is the very reward to be estimated and would cancel it; "
                "use leave_one_out here and keep it for baseline_later"
            )
        if self.samples_per_prompt == 1:
            for key in ("baseline", "baseline_later"):
                if getattr(self, key) not in ("moving_average", "none"):
                    raise ValueError(
                        f"{key}: {getattr(self, key)} compares a prompt's trajectories with one another and "
                        "samples_per_prompt is 1; sample at least 2, or use moving_average or none"
                    )
        return self


class AdaptiveBeta2(Section):
    """A controller that holds the first attempt's KL at a target by moving `beta2`."""

    target_kl: Positive  # nats a trajectory's first attempt
    horizon: Positive = 10.0  # steps over which an error is answered


class Stage1(Stage):
    """Stage I (Eq. 3): reward the last attempt, hold the others to the base model."""

    beta2: NonNegative = 0.1
    adaptive_beta2: AdaptiveBeta2 | None = None
    takeoff_delta: Probability = 0.05  # a validation delta below this at the end brings a warning

    @model_validator(mode="after")
    def _adaptive_beta2_has_a_start(self) -> "Stage1":
        if self.adaptive_beta2 is not None and self.beta2 == 0:
            raise ValueError("adaptive_beta2 scales beta2, and beta2 is 0; give it a positive start")
        if self.adaptive_beta2 is not None and self.kl_estimator == "k1_in_reward":
            raise ValueError(
                "adaptive_beta2 with k1_in_reward would change rewards inside a step; use exact, "
                "k2_in_loss or k3_in_loss"
            )
        return self


class Stage2(Stage):
    """Stage II (Eq. 4): reward every attempt, and progress from one to the next by `alpha`."""

    alpha: NonNegative = 10.0
    gamma: Probability = 0.0  # the share of the next attempt's return that an attempt is credited
    allow_paid_failure: bool = False  # permits alpha * gamma > 1

    @model_validator(mode="after")
    def _failing_first_does_not_pay(self) -> "Stage2":
        if self.alpha * self.gamma > 1 and not self.allow_paid_failure:
            raise ValueError(
                f"alpha * gamma is {self.alpha * self.gamma:g}, more than 1: attempt 1 would be credited "
                "r1 * (1 - alpha * gamma) + ..., that is, paid to fail; lower alpha or gamma, or set "
                "allow_paid_failure: true if this is the experiment"
            )
        return self


class Report(Section):
    """What the report shows."""

    title: str = "SCoRe"
    samples: Annotated[int, Field(ge=0)] = 6  # answers shown of each kind
