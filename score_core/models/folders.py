"""Model folders: fetching, checking, loading and saving them.

A model folder is what transformers saves: a configuration, safetensors weights, and a tokenizer
with a chat template; or, for LoRA, a PEFT adapter beside such a folder. Weights in pickles and code
from a hub are never loaded.
"""

import fnmatch
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from score_core.errors import UserError, refusing
from score_core.files import read_json, write_json
from score_core.hub import snapshot

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import (
        GenerationConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

# What belongs to a model folder; pickles and training states do not.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ADAPTER_CONFIG = "adapter_config.json"


def check_model(folder: Path) -> None:
    """Checks that a model folder is complete, without loading it.

    Raises:
        UserError: the folder, its configuration, its safetensors or its tokenizer is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a transformers model folder.")
    names = sorted(file.name for file in folder.iterdir())
    found = (", ".join(names[:8]) or "nothing") + (", …" if len(names) > 8 else "")
    parts = {
        (
            "config.json",
            ADAPTER_CONFIG,
        ): f"config.json is missing, found {found}; expected a transformers model "
        "folder as save_pretrained writes it",
        ("*.safetensors",): f"no *.safetensors, found {found}; pickled weights are not loaded; convert them "
        "with save_pretrained",
        TOKENIZER_FILES: f"no tokenizer, found {found}; expected one of {', '.join(TOKENIZER_FILES)}; save "
        "the model's tokenizer there with save_pretrained",
    }
    for wanted, says in parts.items():
        if not any(fnmatch.filter(names, pattern) for pattern in wanted):
            raise UserError(f"{folder}: {says}.")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = read_json(index, "prepare_base_model", keys=["weight_map"])
        with loading(folder, index.name):
            missing = sorted({*content["weight_map"].values()} - {*names})
        for shard in missing:
            raise UserError(f"{folder}: {shard} is missing, which {index.name} names; copy it there.")


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Loads a model folder's tokenizer, padding on the left as both sampling and scoring need it.

    A tokenizer without a padding token pads with its end token; masks never take padding from ids.

    Raises:
        UserError: the folder is not complete, or the tokenizer has no chat template or end token.
    """
    from transformers import AutoTokenizer

    check_model(folder)
    with loading(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    if tokenizer.chat_template is None:
        raise UserError(
            f"{folder}: the tokenizer has no chat template, which says how turns are written; use the "
            "model's instruction-tuned variant, or put a chat_template.jinja there."
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{folder}: the tokenizer has neither a padding nor an end token; set eos_token in "
                "tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_configs(folder: Path) -> "tuple[PreTrainedConfig, GenerationConfig]":
    """A model folder's configuration and its generation configuration, which need no weights.

    Raises:
        UserError: the folder is not complete, or transformers cannot read them.
    """
    from transformers import AutoConfig, GenerationConfig

    check_model(folder)
    with loading(folder, "configuration"):
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        if (folder / "generation_config.json").exists():
            return config, GenerationConfig.from_pretrained(str(folder), local_files_only=True)
        return config, GenerationConfig.from_model_config(config)


def load_model(
    folder: Path,
    dtype: "torch.dtype | Literal['float32', 'bfloat16', 'auto']" = "float32",
    device: "torch.device | str" = "cpu",
    base: Path | None = None,
    quantize: Literal["nf4"] | None = None,
) -> "PreTrainedModel":
    """Loads a causal language model for use; a caller that trains it switches gradients on as usual.

    Args:
        folder: a model folder, or a PEFT adapter's.
        dtype: of the weights in memory.
        device: where to put the model.
        base: the model folder under an adapter; by default the one the adapter names.
        quantize: packs weights into 4 bits (QLoRA, arXiv 2305.14314) and computes in `dtype`.

    Returns:
        The model, in evaluation mode; for an adapter folder a `peft.PeftModel` over the base.

    Raises:
        UserError: the folder is not complete, or transformers cannot load it.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_model(folder)
    if (folder / ADAPTER_CONFIG).exists():
        whole = load_model(base or base_of(folder), dtype, device, quantize=quantize)
        adapted: Any = load_adapter(whole, folder)
        return adapted.eval()
    packed: dict[str, Any] = {}
    if quantize is not None:
        packed["device_map"] = {"": device}
        packed["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    with loading(folder, "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            **packed,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model, found = loaded
    if found["missing_keys"]:
        # transformers would go on with random numbers in their place.
        raise UserError(
            f"{folder}: {len(found['missing_keys'])} weights of the architecture are missing, such as "
            f"{min(found['missing_keys'])}; expected all; check config.json, or copy the model again."
        )
    # Packed weights were loaded where they belong, and cannot be moved.
    return model.eval() if quantize else model.to(device).eval()


def load_adapter(whole: "PreTrainedModel", folder: Path, **options: Any) -> "PeftModel":
    """Puts the PEFT adapter in `folder` on a whole model; `options` are those of PEFT.

    Raises:
        UserError: it cannot be loaded, or belongs to another model.
    """
    from peft import PeftModel

    with loading(folder, "adapter"):
        return PeftModel.from_pretrained(whole, str(folder), **options)


def base_of(folder: Path) -> Path:
    """The whole model in `folder`: itself, or what the adapter in it sits on.

    Raises:
        UserError: the adapter names a model that is no folder here.
    """
    if not (folder / ADAPTER_CONFIG).exists():
        return folder
    named = read_json(folder / ADAPTER_CONFIG, "train_stage1").get("base_model_name_or_path")
    if not named or not Path(named).is_dir():
        raise UserError(
            f"{folder / ADAPTER_CONFIG}: the base model {named!r} is not a folder here; expected the "
            "folder the adapter was trained on, such as models/base; run `dvc repro prepare_base_model`."
        )
    return Path(named)


def save_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    state: "dict[str, torch.Tensor] | None" = None,
) -> None:
    """Saves a model and its tokenizer as a model folder, or a PEFT model's adapter as one.

    Only safetensors, JSON and text are written. `folder` is made; wrap it in `replacing`.

    Args:
        state: the weights, where the model itself holds only a part of them.
    """
    model.save_pretrained(str(folder), state_dict=state)
    tokenizer.save_pretrained(str(folder))


def fetch_hub_model(path: str, revision: str, output: Path) -> None:
    """Copies a hub model, pinned, to the new folder `output`, with its commit in `source.json`.

    Raises:
        UserError: the model cannot be fetched, or is not a complete model folder.
    """
    cached = snapshot("model", path, revision, FILES)
    copy_local_model(cached, output)
    write_json(output / "source.json", {"path": path, "revision": revision, "commit": cached.name})


def copy_local_model(path: Path, output: Path) -> None:
    """Copies a local model folder to the new folder `output`, leaving out what is no part of a model.

    Raises:
        UserError: it is not a complete model folder, or is an adapter's.
    """
    check_model(path)
    if (path / ADAPTER_CONFIG).exists():
        raise UserError(
            f"{path}: holds a PEFT adapter; expected a whole model to start from; merge the adapter "
            "into its base (merge_and_unload) and save that."
        )
    output.mkdir()
    for pattern in FILES:
        for file in sorted(path.glob(pattern)):
            shutil.copyfile(file, output / file.name)


def end_token_ids(
    tokenizer: "PreTrainedTokenizerBase", generation_config: "GenerationConfig | None" = None
) -> tuple[int, ...]:
    """The ids that end a turn: the tokenizer's and the generation configuration's, sorted.

    Raises:
        UserError: there is none, so that a turn would only end at its length limit.
    """
    configured = generation_config.eos_token_id if generation_config is not None else None
    ids = list(configured) if isinstance(configured, list | tuple) else [configured]
    found = {int(token) for token in (*ids, tokenizer.eos_token_id) if token is not None}
    if not found:
        raise UserError(
            f"{tokenizer.name_or_path}: no end token, neither in the tokenizer nor in "
            "generation_config.json; set eos_token in tokenizer_config.json."
        )
    return tuple(sorted(found))


def context_limit(config: "PreTrainedConfig") -> int | None:
    """The tokens up to which attention reaches every token before; None where the model sets no limit.

    Behind a sliding window the problem would silently leave the context.
    """
    settings = config.get_text_config()
    found = (getattr(settings, name, None) for name in ("max_position_embeddings", "sliding_window"))
    return min((limit for limit in found if limit is not None), default=None)


def loading(folder: Path, part: str) -> AbstractContextManager[None]:
    what = f"{folder}: transformers cannot load the {part}"
    return refusing(what, "expected a folder it saved itself, without code of its own")
