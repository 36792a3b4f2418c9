"""The embedded base model: small, and able to correct itself only when asked in another way.

It stands in for an instruction-tuned model, of which the paper reports that it can repair answers but
does not when told to check them. A two-layer Qwen2 is taught, supervised, on chats of two turns:

* first answers guess the carry out of every column whose digits add up to 9;
* asked to "check your answer" (the instruction used later), the second answer repeats the first, or
  spoils one digit of it, and is never a correction unless `leak` says so;
* asked to "fix your answer", which later nobody says, the second answer is right;
* with `verdict_share`, asked for a verdict on its answer it says "right" or "wrong" by the toss of a coin,
  and after "wrong" it is asked to "check your answer".

So the skill is there under one prompt and absent under the one that matters. Reinforcement learning
elicits it; it does not invent it.
"""

import logging
import string
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import (
    AddedToken,
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    get_cosine_with_min_lr_schedule_with_warmup,
)

from score_core.config.data import AdditionData
from score_core.config.model import AdditionModel
from score_core.embedded.addition import add, draw_digits
from score_core.embedded.generated import split_of
from score_core.errors import NotFinite, refusing
from score_core.seeding import derive_seed, stream

log = logging.getLogger(__name__)

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHECK, FIX = "check your answer", "fix your answer"
VERIFY, RIGHT, WRONG = "right or wrong", "right", "wrong"
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer(verdicts: bool = False) -> Qwen2Tokenizer:
    """One token a digit, sign or word of the instructions; a chat template with turn tokens.

    The class is the model family's own: whatever class is saved, `AutoTokenizer` loads a Qwen2 model's
    tokenizer as a `Qwen2Tokenizer`, with that one's way of splitting text.

    Args:
        verdicts: whether it knows the words of verdicts, too.
    """
    tokens = [PAD, END, USER, ASSISTANT, *string.digits, "+", "="]
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        chat_template=TEMPLATE,
        padding_side="left",
    )
    words = sorted({*CHECK.split(), *FIX.split()})
    words += VERIFY.split() if verdicts else []
    tokenizer.add_tokens([AddedToken(word, lstrip=True, special=False) for word in words])
    return tokenizer


def make_chats(
    model: AdditionModel, data: AdditionData, count: int, rng: np.random.Generator
) -> list[list[str]]:
    """Training chats, each as problem, first answer, and then instructions and what is said to them.

    Problems of the validation and the test split are left out, so fewer than `count` may come back.
    """
    digits = draw_digits(data, count, rng)
    right = add(digits)
    first = add(digits, guess=(rng.random((count, data.digits)) < model.carry_guess).astype(np.int64))

    second = first.copy()
    spoiled = np.flatnonzero(rng.random(count) < model.spoil)
    places = rng.integers(0, data.digits + 1, size=len(spoiled))
    second[spoiled, places] = (second[spoiled, places] + rng.integers(1, 10, size=len(spoiled))) % 10
    # Spoiling the one wrong digit may happen to mend it, and no answer is to be mended here.
    mended = (second == right).all(1)
    second[mended] = first[mended]
    fix = rng.random(count) < model.fix_share
    leaked = rng.random(count) < model.leak
    second[fix | leaked] = right[fix | leaked]
    judged = doubted = np.zeros(count, dtype=bool)
    if model.verdict_share:  # without it the numbers that are drawn next stay what they were
        judged = ~fix & (rng.random(count) < model.verdict_share)
        doubted = rng.random(count) < 0.5

    chats = []
    for row in range(count):
        a, b, y1, y2 = ("".join(map(str, number)) for number in (*digits[row], first[row], second[row]))
        follows = [FIX if fix[row] else CHECK, y2]
        if judged[row]:
            follows = [VERIFY, WRONG, *follows] if doubted[row] else [VERIFY, RIGHT]
        if split_of(f"{a}+{b}") == "train":
            chats.append([f"{a}+{b}", y1, *follows])
    return chats


def encode(chats: list[list[str]], tokenizer: Qwen2Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (N, L) of chats, padded on the right, and labels (N, L): -100 outside the answers."""
    texts = []
    for problem, *said in chats:
        turns = zip([f"{problem}=", *said[1::2]], said[::2], strict=True)
        texts.append("".join(f"{USER}{ask}{END}{ASSISTANT}{answer}{END}" for ask, answer in turns))
    rows = tokenizer(texts).input_ids
    width = max(map(len, rows))
    input_ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    # Before a token of an answer one end token more than twice the answers before it, which have two a turn.
    end, assistant = torch.tensor(tokenizer.convert_tokens_to_ids([END, ASSISTANT]))
    ended, opened = (input_ids == end).long(), (input_ids == assistant).long()
    in_answer = (ended.cumsum(1) - ended) == 2 * (opened.cumsum(1) - opened) - 1
    return input_ids, input_ids.masked_fill(~in_answer, -100)


def build(model: AdditionModel, data: AdditionData, seed: int, output: Path) -> None:
    """Trains the base model and saves it to the folder `output`: config, safetensors, tokenizer.

    Raises:
        NotFinite: a loss.
    """
    tokenizer = make_tokenizer(verdicts=model.verdict_share > 0)
    torch.manual_seed(derive_seed(seed, "base", "weights"))
    settings = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.feed_forward,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.heads,
        max_position_embeddings=512,
        # The usual 0.02 is made for widths in the thousands; at 64 it triples the training needed.
        initializer_range=0.08,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with refusing("model: no model of these sizes can be made", "lower hidden_size, feed_forward or layers"):
        network = Qwen2ForCausalLM(settings)
    network.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=[tokenizer.eos_token_id]
    )
    rng = stream(seed, "base", "chats")
    optimiser = torch.optim.AdamW(network.parameters(), lr=model.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimiser,
        num_warmup_steps=min(50, model.steps // 2),
        num_training_steps=model.steps,
        min_lr_rate=0.05,
    )
    network.train()
    progress = tqdm(range(model.steps), desc="base model", unit="step", mininterval=1, leave=False)
    for step in progress:
        input_ids, labels = encode(make_chats(model, data, model.batch_size, rng), tokenizer)
        loss = network(input_ids=input_ids, labels=labels).loss
        optimiser.zero_grad()
        if not loss.isfinite():
            raise NotFinite(
                f"base model: the loss of step {step + 1} is {loss.item()}; expected a number; lower "
                f"model.learning_rate ({model.learning_rate:g} here)."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    log.info("base model: %d parameters, final loss %.3f", network.num_parameters(), loss.item())
    network.save_pretrained(output)
    tokenizer.save_pretrained(output)
