"""What many tests build on: small models, tokenizers and conversations, all made here and now."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from score_core.config import schema
from score_core.embedded.addition_model import make_tokenizer
from score_core.files import replacing
from score_core.rollout.conversation import Conversation
from tests.small_run import prepare

# A shell's background job starts with Ctrl-C ignored, and would hand that on to the stages that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# GPT-2 is here for its learned positions: unlike rotary ones they show where counting starts.
FAMILIES = {
    "gpt2": (GPT2Config, GPT2LMHeadModel),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}

# Like templates of reasoning models: earlier answers lose what stands before </think>.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1].lstrip() }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not thinking | default(true) %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a trained base model of two-digit sums, made once (about 15 s) for all workers; read only."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "run"
    torch.set_num_threads(1)
    with FileLock(f"{root}.lock"):
        if not root.exists():
            with replacing(root) as made:
                prepare(made)
    return root


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """The embedded default's tokenizer: a token a digit, pad different from the end token."""
    return make_tokenizer()


@pytest.fixture
def text_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE like that of large models: `a` followed by `b` is two ids or one."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the answer is abababab", "there might be an error"] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    """Builds a randomly initialised model, with distributions that are far from flat."""

    def make(
        family: str = "qwen2", *, tied: bool = True, seed: int = 0, vocab_size: int = 20, **changes: Any
    ) -> PreTrainedModel:
        config_class, model_class = FAMILIES[family]
        config = config_class(
            **{
                "vocab_size": vocab_size,
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "max_position_embeddings": 128,
                "initializer_range": 0.4,
                "tie_word_embeddings": tied,
                "pad_token_id": 0,
                "bos_token_id": None,
                "eos_token_id": 1,
            }
            | changes
        )
        torch.manual_seed(seed)
        return model_class(config).eval()

    return make


@pytest.fixture
def make_conversation(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Callable[..., Conversation]:
    """Builds a conversation from the texts of its prompts; by default that of the embedded task."""

    def make(
        first: str = "{problem}=",
        retry: str = "check your answer",
        *,
        with_tokenizer: PreTrainedTokenizerBase | None = None,
        end_ids: list[int] | None = None,
        few_shot: str | None = None,
        system: str | None = None,
        verify: str | None = None,
        revise: str | None = None,
        **settings: Any,
    ) -> Conversation:
        speaker = with_tokenizer or tokenizer
        files = {"first": first, "retry": retry, "few_shot": few_shot, "system": system}
        files |= {"verify": verify, "revise": revise}
        for name, text in files.items():
            if text is not None:
                (tmp_path / name).write_text(text)
        paths = {name: str(tmp_path / name) for name, text in files.items() if text is not None}
        plain = {
            "folder": str(tmp_path),
            "system": None,
            "few_shot": None,
            "verify": None,
            "revise": None,
            "template_options": {},
            "max_prompt_tokens": 1024,
            "max_new_tokens": 6,
            "max_context_tokens": None,
        }
        return Conversation(
            schema.Conversation(**{**plain, **paths, **settings}),
            speaker,
            [speaker.eos_token_id] if end_ids is None else end_ids,
            verifies=verify is not None,
        )

    return make
