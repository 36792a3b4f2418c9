"""What a process of training holds, in bytes: arithmetic from a model's shape, before anything is loaded.

    weights  +  the larger of (cache, logits and what is read while sampling, activations and logits of a
                               micro-batch)

`benchmarks/memory.py` holds it against what is really held.
"""

import logging
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig

from score_core.config.model import Lora
from score_core.config.runtime import Launch
from score_core.errors import UserError
from score_core.models.weights import count_parameters

log = logging.getLogger(__name__)
USED = 0.9  # of a GPU: the rest is its driver's, the libraries', and lost between blocks
ADAM = 16  # bytes a trained number: itself, its gradient and two moments, in float32
CPU_TOKENS, CPU_ROWS = 65_536, 1024  # fixed, so that results on CPUs do not depend on their memory
MOST_TOKENS, MOST_ROWS = 262_144, 4096  # more at a time is no faster
READ = 10**9  # bytes for what is read at a time, prompts or instructions: enough to keep a GPU busy
LIVE = 10**9  # numbers that ZeRO-3 keeps gathered while it trains
DTYPES: dict[Literal["float32", "bfloat16"], int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Shape:
    """A model as far as its memory goes.

    Attributes:
        parameters: all of them.
        layers, hidden, intermediate, vocabulary: as the configuration has them.
        cached: numbers that the cache keeps of a token in one layer: its keys and values.
        dtype: bytes of a number that is computed with.
        tied: whether embedding and output layer are the same weights.
        repeated: numbers of a token's keys and values in one layer as its queries' heads see them, if several
            share what is cached; else 0.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    cached: int
    dtype: int
    tied: bool = False
    repeated: int = 0

    @classmethod
    def of(cls, folder: Path, config: PreTrainedConfig, dtype: Literal["float32", "bfloat16"]) -> "Shape":
        """From a whole model's folder and its configuration; weights are counted, not loaded."""
        return cls.from_config(count_parameters(folder), config, dtype)

    @classmethod
    def from_config(
        cls, parameters: int, config: PreTrainedConfig, dtype: Literal["float32", "bfloat16"]
    ) -> "Shape":
        """From a configuration and the number of all weights."""
        text = config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        wide = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
        return cls(
            parameters,
            text.num_hidden_layers,
            text.hidden_size,
            wide,
            text.vocab_size,
            2 * heads * size,
            DTYPES[dtype],
            bool(getattr(config, "tie_word_embeddings", True)),
            2 * text.num_attention_heads * size if text.num_attention_heads > heads else 0,
        )

    @property
    def token_cached(self) -> int:
        """Bytes of the cache for a token."""
        return self.layers * self.cached * self.dtype

    @property
    def token_layer(self) -> int:
        """Bytes that a layer keeps of a token for backward, if attention keeps no table of its weights.

        Norms keep about 28 bytes a hidden unit, in float32; attention keeps queries, keys and values as wide
        as these, its output and a copy; the MLP its gate, that activated, the other branch and their product.
        """
        return 28 * self.hidden + self.dtype * (5 * self.hidden + 4 * self.intermediate)

    def token_activations(self, checkpointing: bool) -> int:
        """Bytes kept of a token until backward; with checkpointing the layers' inputs, and one layer."""
        layers = self.layers * (4 * self.hidden if checkpointing else self.token_layer)
        return layers + checkpointing * self.token_layer + 16 * self.hidden  # embedding, last norm

    def scoring(self, tokens: int, scored: int, checkpointing: bool) -> int:
        """The most bytes of a micro-batch, in forward and backward.

        On top of what is kept comes either a chunk of logits, about four times over (the logarithms, their
        exponentials, the gradient), or the gradients of a layer, which take about three times what it keeps.

        Args:
            tokens: of the micro-batch, padding included.
            scored: logits that are held at a time.
        """
        kept = tokens * self.token_activations(checkpointing)
        return kept + max(4 * 4 * scored, 3 * tokens * self.token_layer)

    def row_read(self, width: int, columns: int) -> int:
        """Bytes of a row while some of its tokens are read, without backward, in the layer that computes.

        What comes in, in float32, which an adapter's inputs and outputs are, whatever it sits on; and the
        MLP's parts or the keys and values that heads share, which attention copies for each where there is a
        mask, whichever takes more. For one token a row, as in decoding, it copies nothing.

        Args:
            width: tokens that are read.
            columns: tokens that are in the cache then, these included.
        """
        parts = max(width * 4 * 3 * self.intermediate, columns * self.repeated * self.dtype)
        return width * 4 * 8 * self.hidden + parts

    def rows_read(self, width: int, columns: int) -> int:
        """How many rows may be read at a time; as `row_read`."""
        return max(1, READ // self.row_read(width, columns))

    @property
    def row_logits(self) -> int:
        """Bytes of a row while its next token is drawn: logits, in float32, and their masses."""
        return self.vocabulary * (self.dtype + 3 * 4)


def weight_bytes(
    shape: Shape, lora: Lora | None, packed: bool, launch: Launch, starts: int = 0
) -> tuple[int, int]:
    """What one process holds all the time, and what comes on top while it samples.

    Policy and reference, gradients and optimiser; and `starts` more frozen models of the same shape, as where
    the model that training starts from samples, or the reference is an earlier phase's adapter. An adapter of
    rank r has about 2 r / hidden of the numbers of the layers it is on, and the reference is the model under
    it. Of split models FSDP2 gathers one layer after another, and keeps the output layer from a forward on;
    ZeRO-3 keeps some layers. What is packed takes 4 bits and its scales, embedding and output layer not.
    """
    split, processes = launch.strategy, launch.world_size
    share = 1 / processes if split in ("zero3", "fsdp2") else 1.0
    trained = shape.dtype if launch.offload else ADAM  # offloaded, only what is computed with stays
    ends = shape.vocabulary * shape.hidden
    kept = ends * shape.dtype * (1 - share) if split == "fsdp2" else 0.0
    gathered = shape.parameters * shape.dtype * (1 - share)
    live = gathered * min(1.0, LIVE / shape.parameters) if split == "zero3" else 0.0
    if lora is not None:
        under = shape.parameters * shape.dtype * share + kept
        if packed:
            ends *= 1 if shape.tied else 2
            under = 0.52 * (shape.parameters - ends) + ends * shape.dtype
        adapter = shape.parameters * min(1.0, 2 * lora.rank / shape.hidden)
        optimiser = trained / (processes if split in ("zero2", "zero3", "fsdp2") else 1)
        return round(under * (1 + starts) + adapter * optimiser + live), round(gathered - live)
    reference = shape.parameters * shape.dtype * share * (1 + starts)
    if split == "zero2":
        return round(reference + shape.parameters * (shape.dtype + (trained + 2) / processes)), 0
    held = reference + shape.parameters * (trained + (2 if shape.dtype == 2 else 0)) * share + 2 * kept
    return round(held + live), round(gathered - live)


@dataclass(frozen=True)
class BatchSizes:
    """How much a process takes at a time.

    Attributes:
        tokens: of a micro-batch, padding included.
        rows: trajectories sampled side by side.
    """

    tokens: int
    rows: int


def fit_batches(
    shape: Shape,
    weights: tuple[int, int],
    longest: int,
    room: int | None,
    chunk: int,
    checkpointing: bool = False,
) -> BatchSizes:
    """The largest sizes that fit.

    Args:
        weights: of `weight_bytes`.
        longest: tokens of a dialogue of full length.
        room: bytes of the GPU; None on a CPU, where sizes are fixed.
        chunk: logits that scoring holds at a time.

    Raises:
        UserError: not even one dialogue fits; with the arithmetic.
    """
    if room is None:
        return BatchSizes(max(CPU_TOKENS, longest), CPU_ROWS)
    held, sampling = weights
    sampling += max(READ, shape.row_read(longest, longest))
    free = USED * room - held
    kept, row = shape.token_activations(checkpointing), longest * shape.token_cached + shape.row_logits
    tokens = min(int(free / (kept + 3 * shape.token_layer)), int((free - 16 * chunk) / kept))
    rows = int((free - sampling) / row)
    gb = 1e-9
    one = shape.scoring(longest, min(chunk, longest * shape.vocabulary), checkpointing)
    sums = (
        f"of {room * gb:.1f} GB weights, gradients and optimiser hold {held * gb:.1f} (and while sampling "
        f"{sampling * gb:.1f} more); a dialogue of {longest} tokens takes {one * gb:.2f} to train on and "
        f"{row * gb:.2f} to sample"
    )
    if one > free or row > free - sampling:
        raise UserError(
            f"runtime.yaml: micro_batch_tokens: auto: not one dialogue fits: {sums}. Set "
            "launch.gradient_checkpointing: true, lower conversation.max_new_tokens, train adapters (lora), "
            "or split the model over more GPUs (launch.strategy: zero3)."
        )
    sizes = BatchSizes(min(max(tokens, longest), MOST_TOKENS), min(rows, MOST_ROWS))
    log.info("memory: %s; so micro-batches of %d tokens, and %d sampled together", sums, *astuple(sizes))
    return sizes
