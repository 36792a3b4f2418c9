"""The weights in a model folder, read tensor by tensor."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from score_core.errors import UserError
from score_core.models.folders import ADAPTER_CONFIG, loading

if TYPE_CHECKING:
    from torch import Tensor

ZERO = (".lora_B.", ".lora_embedding_A")  # the parts of an adapter that start at 0; its others are drawn


def check_finite(folder: Path) -> None:
    """Checks that all weights of a model folder are numbers.

    Raises:
        UserError: one is NaN or infinite, or a file is no safetensors.
    """
    for file, name, weight in _weights(folder):
        # Numbers of 8 bits and fewer have no test of their own.
        wide = weight.float() if weight.itemsize == 1 else weight
        wrong = weight.numel() - int(wide.isfinite().sum())
        if wrong:
            raise UserError(
                f"{folder}: {wrong} of {weight.numel()} numbers of {name} in {file.name} are NaN or "
                "infinite; expected finite weights; copy or make the model again."
            )


def changed_share(before: Path, after: Path) -> float:
    """The share of the numbers in the model folder `after` that are others than in `before`.

    What `before` has not was 0. Of an adapter that it has not only what starts so is counted: the rest is
    drawn at random, and nothing says whether training has moved it.
    """
    from safetensors import safe_open

    at: dict[str, Path] = {}
    for file in before.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            at |= dict.fromkeys(weights.keys(), file)
    adapter = (after / ADAPTER_CONFIG).exists()
    changed = total = 0
    for _, name, new in _weights(after):
        old: Tensor | float = 0.0
        if name not in at and adapter and not any(part in name for part in ZERO):
            continue
        if name in at:
            with safe_open(at[name], framework="pt") as weights:
                old = weights.get_tensor(name).to(new.dtype)
        changed += int((new != old).sum())
        total += new.numel()
    return changed / total


def count_parameters(folder: Path) -> int:
    """The numbers in a model folder's weights, from their headers."""
    from safetensors import safe_open

    count = 0
    for file in folder.glob("*.safetensors"):
        with loading(folder, file.name), safe_open(file, framework="pt") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


def _weights(folder: Path) -> "Iterator[tuple[Path, str, Tensor]]":
    """File, name and value of every tensor, one in memory at a time."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with loading(folder, file.name), safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - a method, of no dictionary
                yield file, name, weights.get_tensor(name)
