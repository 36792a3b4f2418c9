"""The section `model`: what training starts from. And `lora`: the adapter that it trains, if any."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from score_core.config.section import Count, Positive, Probability, Section

Name = Annotated[str, Field(min_length=1)]
Family = Literal["qwen2", "qwen3", "llama"]


class AdditionModel(Section):
    """The embedded base model: a small Qwen2 taught on sums (see `score_core/embedded/addition_model.py`)."""

    source: Literal["addition"]
    hidden_size: Count
    layers: Count
    heads: Count
    feed_forward: Count
    steps: Count
    smoke_steps: Count  # what a smoke run takes instead of `steps`
    batch_size: Count
    learning_rate: Positive
    carry_guess: Probability  # in first answers, P(carry out = 1) of a column that adds up to 9
    fix_share: Probability  # chats whose second turn asks to "fix" and is answered rightly
    spoil: Probability  # "check" chats whose second answer spoils one digit
    leak: Probability  # "check" chats whose second answer is right whatever the first was
    # Chats without "fix" that ask for a verdict first, which is a toss; above 0 the model is another one.
    verdict_share: Probability

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "AdditionModel":
        # Rotary positions turn a head's numbers in pairs.
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"heads: {self.heads} heads do not share hidden_size: {self.hidden_size} in even parts; make "
                "hidden_size a multiple of twice the heads"
            )
        return self

    def smoke(self) -> "AdditionModel":
        """What a smoke run builds: the same model, taught for a few steps."""
        return self.model_copy(update={"steps": self.smoke_steps})


class TinyModel(Section):
    """A randomly initialised model of an architecture family; what smoke runs train."""

    source: Literal["tiny"]
    family: Family


class FileModel(Section):
    """What the hub and the local source have in common: how weights are held in memory."""

    dtype: Literal["float32", "bfloat16"]
    quantize: Literal["nf4"] | None  # 4-bit weights under an adapter; needs a GPU, see docs/scaling.md


class HubModel(FileModel):
    """A causal language model on the Hugging Face hub, pinned by revision."""

    source: Literal["hub"]
    path: str  # e.g. "Qwen/Qwen3-0.6B"
    revision: str
    family: Family  # the architecture of a smoke run's tiny model

    def smoke(self) -> TinyModel:
        """What a smoke run builds: a tiny model of the same family."""
        return TinyModel(source="tiny", family=self.family)


class LocalModel(FileModel):
    """A transformers model folder: config, safetensors, tokenizer with a chat template."""

    source: Literal["local"]
    path: str


Model = Annotated[AdditionModel | HubModel | LocalModel | TinyModel, Field(discriminator="source")]


class Lora(Section):
    """Low-rank adapters; the reference is then the model with its adapter switched off."""

    rank: Count
    alpha: Count
    targets: Annotated[tuple[Name, ...], Field(min_length=1)] | Literal["all-linear"]
