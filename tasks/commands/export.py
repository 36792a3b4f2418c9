"""Joins the trained model and its card in one folder: `python -m tasks.commands.export --output export`.

transformers loads the folder as it stands, and it can be uploaded to a hub as it stands.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from score_core.errors import UserError
from score_core.files import read_json, replacing
from tasks.runner.exits import exit_code
from tasks.runner.pipeline import outputs_of, stages_of

TRAINED = stages_of("train")[-1]
# Tells a later export that the folder is one of ours and may be replaced.
MARK = "score_export.json"


def export(model: Path, card: Path, output: Path, force: bool = False) -> Path | None:
    """Copies `model`, with `card` as its README.md, to `output`; all of it or nothing.

    Args:
        force: replace a folder that no export made.

    Returns:
        None for a full model, or what its adapter calls its base model.

    Raises:
        UserError: an input is missing, or `output` is not ours to replace.
    """
    adapter = model / "adapter_config.json"
    if not adapter.is_file() and not (model / "config.json").is_file():
        raise UserError(f"{model}: no trained model here; run `dvc repro {TRAINED}`, which makes it.")
    if not card.is_file():
        raise UserError(f"{card}: not found; run `dvc repro report`, which makes it.")
    base = read_json(adapter, TRAINED)["base_model_name_or_path"] if adapter.is_file() else None

    output = output.resolve()
    _check_replaceable(output, model.resolve(), force)
    with replacing(output) as temporary:
        # Contents only: files that DVC linked from its cache are read-only, and copies need not be.
        shutil.copytree(model, temporary, copy_function=shutil.copyfile)
        shutil.copyfile(card, temporary / "README.md")
        (temporary / MARK).write_text(
            json.dumps({"made_by": "tasks.commands.export", "from": str(model)}) + "\n"
        )
    return base


def _check_replaceable(output: Path, model: Path, force: bool) -> None:
    here = Path.cwd()
    if (
        output in (here, *here.parents)
        or output == model
        or model in output.parents
        or output in model.parents
    ):
        raise UserError(
            f"{output}: an export replaces its folder, and this one holds the checkout or the model; "
            "give --output a folder of its own."
        )
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output}: expected a folder, found a file; give --output another name.")
    ours = (output / MARK).is_file() or not any(output.iterdir())
    if not ours and not force:
        raise UserError(
            f"{output}: holds something that no export made; give --output another name, or --force "
            "to replace it."
        )


def how_to_load(output: Path, base: str | None) -> str:
    """What to type in Python."""
    if base is None:
        return (
            f"{output}: model and card. To load it:\n"
            "  from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f"  model = AutoModelForCausalLM.from_pretrained({str(output)!r})\n"
            f"  tokenizer = AutoTokenizer.from_pretrained({str(output)!r})"
        )
    return (
        f"{output}: a LoRA adapter and its card, no full model. Its base is {base}. To load both:\n"
        "  from peft import AutoPeftModelForCausalLM\n"
        "  from transformers import AutoTokenizer\n"
        f"  model = AutoPeftModelForCausalLM.from_pretrained({str(output)!r})\n"
        f"  tokenizer = AutoTokenizer.from_pretrained({str(output)!r})"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.commands.export", description=__doc__.splitlines()[0]
    )
    model, card = outputs_of(TRAINED)[0], outputs_of("report")[1]
    parser.add_argument("--model", type=Path, default=model, help=f"the trained model ({model})")
    parser.add_argument("--card", type=Path, default=card, help=f"its card ({card})")
    parser.add_argument("--output", type=Path, default=Path("export"), help="the folder to write (export)")
    parser.add_argument("--force", action="store_true", help="replace a folder that no export made")
    given = parser.parse_args(arguments)

    def work() -> None:
        base = export(given.model, given.card, given.output, given.force)
        print(how_to_load(given.output, base))

    return exit_code("export", work)


if __name__ == "__main__":
    sys.exit(main())
