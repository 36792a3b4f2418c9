"""The keys and values of all rows of a batch, allocated once, whose rows can leave and come back."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from score_core.errors import UserError


class BoundedLayer(CacheLayerMixin):
    """A layer's keys and values (N, heads, columns, size), of which rows from `first` on are in use.

    How many is told by what `update` is given: all other rows stay as they are.
    """

    is_sliding = False

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns, self.first, self.filled = rows, columns, 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocates, once the first keys tell shapes, dtype and device.

        Zeros, because what is masked still enters a product: with 0, and 0 times NaN is NaN.
        """
        heads = key_states.shape[1]
        self.keys = key_states.new_zeros(self.rows, heads, self.columns, key_states.shape[-1])
        self.values = value_states.new_zeros(self.rows, heads, self.columns, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends columns to the rows in use; returns all columns of those rows, without a copy."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, start = slice(self.first, self.first + key_states.shape[0]), self.filled
        self.filled += key_states.shape[2]
        kept = []
        for whole, new in ((self.keys, key_states), (self.values, value_states)):
            assert whole is not None
            whole[rows, :, start : self.filled] = new
            kept.append(whole[rows, :, : self.filled])
        return kept[0], kept[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns with what is about to be appended, and that none was dropped before them."""
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.filled

    def get_max_length(self) -> int:
        """Columns there are."""
        return self.columns


class BoundedCache(Cache):
    """A cache of `rows` rows of at most `columns` tokens.

    Args:
        config: of the model.

    Raises:
        UserError: the model keeps something else than keys and values of each token.
    """

    def __init__(self, config: PreTrainedConfig, rows: int, columns: int) -> None:
        layers = DynamicCache(config=config).layers
        # A window that slides is never left: dialogues that are longer are refused (`context_limit`).
        foreign = {type(layer).__name__ for layer in layers} - {
            DynamicLayer.__name__,
            DynamicSlidingWindowLayer.__name__,
        }
        if foreign:
            raise UserError(
                f"{config.model_type}: engine: builtin samples models whose layers all are attention, and "
                f"this one has others ({', '.join(sorted(foreign))}); use another family."
            )
        self.bounded = [BoundedLayer(rows, columns) for _ in layers]
        super().__init__(layers=list(self.bounded))

    def go_to(self, first: int, filled: int) -> None:
        """What comes next goes to rows from `first` on, after as many columns as are `filled`."""
        for layer in self.bounded:
            layer.first, layer.filled = first, filled

    def repeat(self, rows: int, times: int) -> None:
        """Makes each of the first rows `times` rows next to each other."""
        for whole in self._tensors():
            filled = self.get_seq_length()
            whole[: rows * times, :, :filled] = whole[:rows, :, :filled].repeat_interleave(times, dim=0)

    def swap(self, one: Tensor, other: Tensor) -> None:
        """Lets two lists of as many rows change places."""
        filled = self.get_seq_length()
        for whole in self._tensors():
            moved = whole[one, :, :filled]
            whole[one, :, :filled] = whole[other, :, :filled]
            whole[other, :, :filled] = moved

    def _tensors(self) -> list[Tensor]:
        pairs = [(layer.keys, layer.values) for layer in self.bounded]
        return [whole for pair in pairs for whole in pair if whole is not None]
