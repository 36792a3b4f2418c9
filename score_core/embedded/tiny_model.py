"""A randomly initialised model of an architecture family, built without a download.

It answers nothing, yet is the family's architecture with grouped-query attention, a tokenizer that
writes bytes, the family's turn tokens and its way of writing dialogues: what a smoke run needs to
pass through every line a real model does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from score_core.models.folders import save_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTEXT = 8192  # tokens, which here are bytes
Family = Literal["qwen2", "qwen3", "llama"]

_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

# Like the family's own, it drops the thoughts of earlier answers: text that is decoded and templated
# again is not what was sampled.
_CHATML_THINKING = """\
{%- for message in messages %}
{%- set content = message.content %}
{%- if message.role == 'assistant' and not loop.last %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

_HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{{- message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""


@dataclass(frozen=True)
class _Dialogue:
    """How a family writes a dialogue."""

    special: tuple[str, ...]
    template: str
    bos: str | None
    eos: str
    pad: str
    ends: list[str]  # the generation configuration's list of end tokens


_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_ENDS = ["<|im_end|>", "<|endoftext|>"]
_DIALOGUES: dict[Family, _Dialogue] = {
    "qwen2": _Dialogue(_QWEN_TOKENS, _CHATML, None, "<|im_end|>", "<|endoftext|>", _QWEN_ENDS),
    "qwen3": _Dialogue(_QWEN_TOKENS, _CHATML_THINKING, None, "<|im_end|>", "<|endoftext|>", _QWEN_ENDS),
    "llama": _Dialogue(
        (
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
        _HEADERS,
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
    tokenizer.chat_template = dialogue.template
    return tokenizer
