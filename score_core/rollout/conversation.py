"""From a problem to the token ids of a conversation.

Text becomes ids in two places only: the first prompt `x1`, and the instruction between two attempts.
What the model itself wrote stays the ids it sampled: decoding and tokenising them again would change
them (templates strip or rewrite answers), and the policy would be trained on what it never said.
"""

import copy
import inspect
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from score_core.config import schema
from score_core.errors import UserError, refusing
from score_core.files import read_text
from score_core.models.folders import base_of, context_limit, end_token_ids, load_configs, load_tokenizer
from score_core.problems import Problem

# A stand-in for an answer, to see what the chat template puts after one.
ANSWER = "ANSWER"

# Some templates print today's date, and a run would say something else every day. For them it is always this
# day, which Llama's say where they know of none; `template_options` sets it where a template takes one.
TODAY = datetime(2024, 7, 26)
# Ends with the line break that the template engine removes behind a block, and so changes nothing else.
PINNED = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace('%{code}', '{TODAY.strftime(f'%{code}')}')" for code in "aAbBcdeFHIjmMpSTuUVwWxXyY")
    + " }}{%- endmacro %}\n"
)


def load_conversation(
    folder: Path, settings: schema.Conversation, attempts: int, base: Path | None = None
) -> "Conversation":
    """The dialogues with a model, checked before its weights are loaded.

    Args:
        folder: a transformers model folder, or an adapter's.
        attempts: how many a dialogue has.
        base: the model folder under an adapter; by default the one that the adapter names.

    Raises:
        UserError: the folder is no usable model, its context is too short for so many attempts, its chat
            template cannot write them, or a prompt file is wrong.
    """
    tokenizer = load_tokenizer(folder)
    config, generation = load_configs(base or base_of(folder))
    conversation = Conversation(settings, tokenizer, end_token_ids(tokenizer, generation))
    conversation.check_fits(attempts, context_limit(config))
    return conversation


class Conversation:
    """The fixed words of a dialogue, as token ids.

    Attributes:
        end_ids: tokens that end a turn, from the tokenizer and the generation config.
        instruction: ids from the end of one attempt to the start of the next: end of turn, the
            instruction, the opening of the assistant's turn.
        dialogue: a dialogue of two attempts as the chat template writes it, with stand-ins for problem and
            answer. What is said is the same wherever this is.
    """

    def __init__(
        self, settings: schema.Conversation, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]
    ) -> None:
        ours = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
        for name in sorted(settings.template_options.keys() & ours.keys()):
            raise UserError(
                f"conversation.template_options.{name}: is no option of the chat template but an argument of "
                "transformers' own; expected a variable of the template, such as enable_thinking; remove it."
            )
        self.settings = settings
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self._first = _read(settings.first)
        if "{problem}" not in self._first:
            raise UserError(
                f"{settings.first}: expected {{problem}} where the problem goes, found none; add it."
            )
        self._opening = [{"role": "system", "content": _read(settings.system)}] if settings.system else []
        for problem, answer in _read_few_shot(settings.few_shot):
            self._opening += [self._user(problem), {"role": "assistant", "content": answer}]
        retry = _read(settings.retry)
        if not retry:
            raise UserError(
                f"{settings.retry}: is empty; expected the instruction before every later attempt, such as "
                "`Check your answer`; write one."
            )
        self.dialogue = self._render(
            [
                *self._opening,
                self._user("1"),
                {"role": "assistant", "content": ANSWER},
                {"role": "user", "content": retry},
            ]
        )
        self.instruction = self._between_attempts(retry)

    def prompt(self, problem: Problem) -> list[int]:
        """Ids of `x1`, with the assistant's turn opened; never cut (see `check_prompts`)."""
        return self._ids(self._render([*self._opening, self._user(problem.problem)]))

    def question(self, text: str) -> list[int]:
        """Ids of a chat that opens with `text` and nothing else, with the assistant's turn opened."""
        return self._ids(self._render([{"role": "user", "content": text}]))

    def limited(self, max_new_tokens: int) -> "Conversation":
        """The same with answers of so many tokens at most."""
        other = copy.copy(self)
        other.settings = self.settings.model_copy(update={"max_new_tokens": max_new_tokens})
        return other

    def attempt(self, text: str) -> list[int]:
        """Ids of an attempt that is given, as if the model had sampled it to its end."""
        return [*self._ids(text), self.instruction[0]]

    def check_prompts(self, problems: Sequence[Problem]) -> None:
        """Refuses problems that are too long; cheap (under 1 ms each) beside loading weights, so done before.

        Raises:
            UserError: prompts are longer than `max_prompt_tokens`; it names the longest.
        """
        limit = self.settings.max_prompt_tokens
        sizes = {problem: size for problem in problems if (size := len(self.prompt(problem))) > limit}
        if sizes:
            problem, most = max(sizes.items(), key=lambda item: item[1])
            others = f", the most of {len(sizes)} that are too long" if len(sizes) > 1 else ""
            raise UserError(
                f"problem {problem.id} ({problem.problem[:60]!r}): its prompt has {most} tokens{others}; "
                f"expected at most conversation.max_prompt_tokens = {limit}; raise that or remove the "
                "problem."
            )

    def continuation(self, attempt: Sequence[int]) -> list[int]:
        """Ids to append to the sampled `attempt`, up to where the next attempt starts.

        An attempt that was cut at its length limit has no end-of-turn token; the one inserted here is
        context and is never trained on.
        """
        ended = len(attempt) > 0 and attempt[-1] == self.instruction[0]
        return self.instruction[1:] if ended else self.instruction

    def texts(self, attempts: Sequence[Sequence[list[int]]]) -> list[list[str]]:
        """The sampled attempts as text, for verifiers and people; never fed back to the model."""
        return [self.tokenizer.batch_decode(list(row), skip_special_tokens=True) for row in attempts]

    def longest(self, attempts: int) -> int:
        """The most tokens that a dialogue of this many attempts can have."""
        return (
            self.settings.max_prompt_tokens
            + attempts * self.settings.max_new_tokens
            + (attempts - 1) * len(self.instruction)
        )

    def check_fits(self, attempts: int, limit: int | None) -> None:
        """Refuses dialogues that could outgrow the context, since what would be cut is `x` or `y1`.

        Args:
            limit: the model's own limit in tokens, if it has one.

        Raises:
            UserError: with the arithmetic.
        """
        limits = [size for size in (limit, self.settings.max_context_tokens) if size is not None]
        if limits and self.longest(attempts) > min(limits):
            raise UserError(
                f"conversation: {attempts} attempts can reach {self.longest(attempts)} tokens (prompt "
                f"{self.settings.max_prompt_tokens}, each attempt {self.settings.max_new_tokens}, each "
                f"instruction {len(self.instruction)}) and the context holds {min(limits)}; lower "
                "max_prompt_tokens or max_new_tokens."
            )

    def _user(self, problem: str) -> dict[str, str]:
        # Not str.format: problems and prompts are full of braces.
        return {"role": "user", "content": self._first.replace("{problem}", problem)}

    def _between_attempts(self, retry: str) -> list[int]:
        text = self.dialogue
        # The last stand-in before the instruction, which may well hold the same word.
        asked = text.rfind(retry)
        answered = text.rfind(ANSWER, 0, max(asked, 0))
        ids = self._ids(text[answered + len(ANSWER) :]) if answered >= 0 else []
        if not ids or ids[0] not in self.end_ids:
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path} does not close an assistant's turn with "
                f"an end token (expected one of {list(self.end_ids)}, found {ids[:1]}); use a model whose "
                "template and generation config agree."
            )
        return ids

    def _render(self, messages: list[dict[str, str]]) -> str:
        options: dict[str, Any] = self.settings.template_options
        remedy = "see conversation.few_shot and template_options, or use another model"
        if self.settings.system:
            remedy = "set conversation.system: null and say it in conversation.first, or " + remedy
        # The model's own program, which may raise whatever it likes.
        with refusing(f"the chat template of {self.tokenizer.name_or_path} refuses the dialogue", remedy):
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=PINNED + self.tokenizer.get_chat_template(),
                add_generation_prompt=True,
                tokenize=False,
                **options,
            )
        assert isinstance(text, str)
        return text

    def _ids(self, text: str) -> list[int]:
        # The template has written every special token itself.
        return self.tokenizer(text, add_special_tokens=False).input_ids


def _read(path: str) -> str:
    return read_text(Path(path), "write this prompt file, or name another in conversation.*").strip()


def _read_few_shot(path: str | None) -> list[tuple[str, str]]:
    pairs = []
    wanted = 'expected {"problem": "...", "answer": "..."}'
    # Not splitlines(): it also splits at separators that JSON allows inside a string.
    for number, line in enumerate(_read(path).split("\n") if path else [], start=1):
        with refusing(f"{path}: line {number}: {line[:60]!r} is no example", wanted):
            row = json.loads(line)
            pairs.append((row["problem"], row["answer"]))
            if not all(isinstance(part, str) for part in pairs[-1]):
                raise TypeError("no text")
    return pairs
