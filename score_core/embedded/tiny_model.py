"""A randomly initialised model of an architecture family, built without a download.

It answers nothing, yet is the family's architecture with grouped-query attention, a tokenizer that
writes bytes, the family's turn tokens and its way of writing dialogues: what a smoke run needs to
pass through every line a real model does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from score_core.config.model import Family
from score_core.models.folders import save_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTEXT = 8192  # tokens, which here are bytes
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _Dialogue:
    """How a family writes a dialogue."""

    special: tuple[str, ...]
    template: str  # a file in templates/
    bos: str | None
    eos: str
    pad: str
    ends: list[str]  # the generation configuration's list of end tokens


_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA_NAMES = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
_QWEN_ENDS = ["<|im_end|>", "<|endoftext|>"]
_DIALOGUES: dict[Family, _Dialogue] = {
    "qwen2": _Dialogue(_QWEN_TOKENS, "chatml", None, "<|im_end|>", "<|endoftext|>", _QWEN_ENDS),
    "qwen3": _Dialogue(_QWEN_TOKENS, "chatml_thinking", None, "<|im_end|>", "<|endoftext|>", _QWEN_ENDS),
    "llama": _Dialogue(
        tuple(f"<|{name}|>" for name in _LLAMA_NAMES),
        "headers",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|eot_id|>",  # the family has no padding token of its own, and most people pad with this one
        ["<|end_of_text|>", "<|eot_id|>"],
    ),
}


def build(family: Family, seed: int, output: Path) -> None:
    """Makes the model folder `output`: about 27 thousand parameters, float32, the same for a seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    dialogue = _DIALOGUES[family]
    tokenizer = _tokenizer(dialogue)
    tokens = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        **tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids(dialogue.ends), **tokens
    )
    save_model(model, tokenizer, output)


def _tokenizer(dialogue: _Dialogue) -> "PreTrainedTokenizerFast":
    """One token a byte, and one for each special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={byte: at for at, byte in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=dialogue.bos,
        eos_token=dialogue.eos,
        pad_token=dialogue.pad,
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(dialogue.special)})
    tokenizer.chat_template = (TEMPLATES / f"{dialogue.template}.jinja").read_text("utf-8").rstrip("\n")
    return tokenizer
