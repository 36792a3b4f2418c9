"""Joins the trained model and its card in one folder: `python -m tasks.commands.export --output export`.

transformers loads the folder as it stands, and it can be uploaded to a hub as it stands. An adapter names its
base model: that of the hub, at its commit, or a folder of this machine; `make merge` makes a whole model.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_core.errors import UserError
from score_core.files import read_json, replacing, write_json
from score_core.models.folders import ADAPTER_CONFIG
from tasks.runner.exits import exit_code, parser_of
from tasks.runner.pipeline import check_model_made, outputs_of, stages_of

TRAINED = stages_of("train")[-1]
# Tells a later export that the folder is one of ours and may be replaced.
MARK = "score_export.json"


def export(model: Path, card: Path, output: Path, force: bool = False) -> None:
    """Copies `model`, with `card` as its README.md, to `output`, all of it or nothing; prints how to load it.

    Args:
        force: replace a folder that no export made.

    Raises:
        UserError: an input is missing, or `output` is not ours to replace.
    """
    check_model_made(model, TRAINED)
    if not card.is_file():
        raise UserError(f"{card}: not found; run `dvc repro report`, which makes it.")
    adapter = _adapter_anywhere(model)
    _check_replaceable(output.resolve(), model.resolve(), force)
    with replacing(output.resolve()) as temporary:
        # Contents only: files that DVC linked from its cache are read-only, and copies need not be.
        shutil.copytree(model, temporary, copy_function=shutil.copyfile)
        shutil.copyfile(card, temporary / "README.md")
        if adapter is not None:
            write_json(temporary / ADAPTER_CONFIG, adapter)
        write_json(temporary / MARK, {"made_by": "tasks.commands.export", "from": str(model)})
    print(_how_to_load(output, adapter))


def _adapter_anywhere(model: Path) -> dict[str, Any] | None:
    """The adapter's configuration with a base model that is found from any folder; None of a whole model.

    Training names the folder of the base model as seen from the checkout.
    """
    if not (model / ADAPTER_CONFIG).is_file():
        return None
    config = read_json(model / ADAPTER_CONFIG, TRAINED)
    base = Path(config["base_model_name_or_path"])
    source = base / "source.json"  # of a model that came from the hub
    if source.is_file():
        fetched = read_json(source, "prepare_base_model")
        return config | {"base_model_name_or_path": fetched["path"], "revision": fetched["commit"]}
    return config | ({"base_model_name_or_path": str(base.resolve())} if base.is_dir() else {})


def _check_replaceable(output: Path, model: Path, force: bool) -> None:
    if output.is_relative_to(model) or any(path.is_relative_to(output) for path in (model, Path.cwd())):
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


def _how_to_load(output: Path, adapter: Mapping[str, Any] | None) -> str:
    what, library, loader = "model and card. To load it", "transformers", "AutoModelForCausalLM"
    if adapter is not None:
        base = adapter["base_model_name_or_path"]
        where = f"{base} of the hub, commit {adapter.get('revision')}"
        if Path(base).is_dir():
            where = f"{base}, which only this machine has; `make merge` makes a whole model"
        what = f"a LoRA adapter and its card, no full model. Its base is {where}. To load both"
        library, loader = "peft", "AutoPeftModelForCausalLM"
    return (
        f"{output}: {what}:\n"
        f"  from {library} import {loader}\n"
        "  from transformers import AutoTokenizer\n"
        f"  model = {loader}.from_pretrained({str(output)!r})\n"
        f"  tokenizer = AutoTokenizer.from_pretrained({str(output)!r})"
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = parser_of("tasks.commands.export", __doc__)
    model, card = outputs_of(TRAINED)[0], outputs_of("report")[1]
    parser.add_argument("--model", type=Path, default=model, help=f"the trained model ({model})")
    parser.add_argument("--card", type=Path, default=card, help=f"its card ({card})")
    parser.add_argument("--output", type=Path, default=Path("export"), help="the folder to write (export)")
    parser.add_argument("--force", action="store_true", help="replace a folder that no export made")
    given = parser.parse_args(arguments)
    return exit_code("export", lambda: export(given.model, given.card, given.output, given.force))


if __name__ == "__main__":
    sys.exit(main())
