"""Folds an adapter into its base model: `python -m tasks.commands.merge`, or `make merge`.

    python -m tasks.commands.merge [--adapter FOLDER] [--base FOLDER] [--output merged] [--dtype float32]

Writes a whole transformers model folder, which answers as base and adapter do together. An adapter that
was trained over 4-bit weights is folded into the unpacked ones, which answer nearly the same.
"""

import sys
from pathlib import Path

from score_core.errors import UserError
from score_core.files import replacing
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.pipeline import outputs_of, stages_of


def merge(adapter: Path, base: Path, output: Path, dtype: str) -> None:
    """Writes the merged model to `output`, and prints where that is.

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
    print(f"merged model: {output.resolve()}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.merge", __doc__)
    adapter, base = outputs_of(stages_of("train")[-1])[0], outputs_of("prepare_base_model")[0]
    parser.add_argument("--adapter", type=Path, default=adapter, help=f"a trained adapter ({adapter})")
    parser.add_argument("--base", type=Path, default=base, help=f"the model that it sits on ({base})")
    parser.add_argument("--output", type=Path, default=Path("merged"), help="the folder to write (merged)")
    dtypes = ("auto", "float32", "bfloat16")
    parser.add_argument("--dtype", choices=dtypes, default="auto", help="of the weights (auto: the base's)")
    given = parser.parse_args(arguments)
    return exit_code("merge", lambda: merge(given.adapter, given.base, given.output, given.dtype))


if __name__ == "__main__":
    sys.exit(main())
