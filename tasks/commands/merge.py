"""Folds an adapter into its base model: `python -m tasks.commands.merge`, or `make merge`.

    python -m tasks.commands.merge [--adapter FOLDER] [--base FOLDER] [--output merged] [--dtype float32]

Writes a whole transformers model folder, which answers as base and adapter do together. An adapter that
was trained over 4-bit weights is folded into the unpacked ones, which answer nearly the same.
"""

import argparse
import sys
from pathlib import Path

from score_core.errors import UserError
from score_core.files import replacing


def merge(adapter: Path, base: Path, output: Path, dtype: str) -> None:
    """Writes the merged model to `output`.

    Args:
        dtype: of the weights to write, "float32" or "bfloat16"; "auto" is the base model's own.

    Raises:
        UserError: `adapter` holds no adapter, `base` no model, or `output` exists.
    """
    from score_core.models.folders import ADAPTER_CONFIG, load_model, load_tokenizer, save_model

    if not (adapter / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{adapter}: no {ADAPTER_CONFIG}, expected a PEFT adapter; a model that was trained whole (lora: "
            "null) needs no merging."
        )
    if output.exists():
        raise UserError(f"{output}: exists and is not replaced; remove it or name another with --output.")
    model = load_model(adapter, dtype, base=base).merge_and_unload()
    with replacing(output) as temporary:
        save_model(model, load_tokenizer(adapter), temporary)


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.commands.merge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--adapter", type=Path, default=Path("models/stage2"))
    parser.add_argument("--base", type=Path, default=Path("models/base"))
    parser.add_argument("--output", type=Path, default=Path("merged"))
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    arguments = parser.parse_args()
    try:
        merge(arguments.adapter, arguments.base, arguments.output, arguments.dtype)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"merged model: {arguments.output.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
