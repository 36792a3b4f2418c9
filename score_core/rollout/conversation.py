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
from score_core.rollout.verification import judgement

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
    folder: Path,
    settings: schema.Conversation,
    attempts: int,
    base: Path | None = None,
    verifies: bool = False,
) -> "Conversation":
    """The dialogues with a model, checked before its weights are loaded.

    Args:
        folder: a transformers model folder, or an adapter's.
        attempts: how many a dialogue has.
        base: the model folder under an adapter; by default the one that the adapter names.
        verifies: see `Conversation`.

    Raises:
        UserError: the folder is no usable model, its context is too short for so many attempts, its chat
            template cannot write them, or a prompt file is wrong.
    """
    tokenizer = load_tokenizer(folder)
    config, generation = load_configs(base or base_of(folder))
    conversation = Conversation(settings, tokenizer, end_token_ids(tokenizer, generation), verifies)
    conversation.check_fits(attempts, context_limit(config))
    return conversation


class Conversation:
    """The fixed words of a dialogue, as token ids.

    The model's turns are its attempts. Where it verifies, a verdict on each attempt comes before the next
    one (`verification.py`), and the dialogue ends with the first that does not say "wrong".

    Args:
        verifies: whether the model is asked for verdicts.

    Attributes:
        end_ids: tokens that end a turn, from the tokenizer and the generation config.
        instructions: what stands between two turns, one after another and from the start again: ids of the
            end of turn, the instruction, the opening of the assistant's turn.
        instruction: the first of them.
        dialogue: a dialogue of two turns as the chat template writes it, with stand-ins for problem and
            answer; one for each instruction. What is said is the same wherever this is.
    """

    def __init__(
        self,
        settings: schema.Conversation,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        verifies: bool = False,
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
        self.verifies = verifies
        self._first = _read(settings.first)
        if "{problem}" not in self._first:
            raise UserError(
                f"{settings.first}: expected {{problem}} where the problem goes, found none; add it."
            )
        self._opening = [{"role": "system", "content": _read(settings.system)}] if settings.system else []
        for problem, answer in _read_few_shot(settings.few_shot):
            self._opening += [self._user(problem), {"role": "assistant", "content": answer}]
        asked = [
            _read_instruction(settings, key) for key in (("verify", "revise") if verifies else ("retry",))
        ]
        dialogues = [self._asked_again(instruction) for instruction in asked]
        self.dialogue = "".join(dialogues)
        self.instructions = [self._between_turns(*one) for one in zip(dialogues, asked, strict=True)]
        self.instruction = self.instructions[0]

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

    def turns(self, attempts: int) -> int:
        """How many turns of the model a dialogue of so many attempts has, if it goes to its end."""
        return 2 * attempts - 1 if self.verifies else attempts

    def labels(self, turns: int) -> list[str]:
        """What the turns are called in tables: `t1`, `t2`, ... attempts, `v1` the verdict on the first."""
        if not self.verifies:
            return [f"t{turn}" for turn in range(1, turns + 1)]
        return [f"{'tv'[at % 2]}{at // 2 + 1}" for at in range(turns)]

    def continuation(self, said: Sequence[int], turn: int) -> list[int]:
        """Ids to append to what was sampled in a turn, up to where the next one starts; none after the last.

        What was cut at its length limit has no end-of-turn token; the one inserted here is context and is
        never trained on.

        Args:
            turn: counted from 1.
        """
        if self.verifies and not self._goes_on(said, turn):
            return []
        instruction = self.instructions[(turn - 1) % len(self.instructions)]
        ended = len(said) > 0 and said[-1] == instruction[0]
        return instruction[1:] if ended else instruction

    def texts(self, attempts: Sequence[Sequence[list[int]]]) -> list[list[str]]:
        """The sampled attempts as text, for verifiers and people; never fed back to the model."""
        return [self.tokenizer.batch_decode(list(row), skip_special_tokens=True) for row in attempts]

    def longest(self, attempts: int) -> int:
        """The most tokens that a dialogue of this many attempts can have."""
        turns = self.turns(attempts)
        between = [len(self.instructions[at % len(self.instructions)]) for at in range(turns - 1)]
        return self.settings.max_prompt_tokens + turns * self.settings.max_new_tokens + sum(between)

    def check_fits(self, attempts: int, limit: int | None) -> None:
        """Refuses dialogues that could outgrow the context, since what would be cut is `x` or `y1`.

        Args:
            limit: the model's own limit in tokens, if it has one.

        Raises:
            UserError: with the arithmetic.
        """
        limits = [size for size in (limit, self.settings.max_context_tokens) if size is not None]
        if limits and self.longest(attempts) > min(limits):
            each = "attempt or verdict" if self.verifies else "attempt"
            raise UserError(
                f"conversation: {attempts} attempts can reach {self.longest(attempts)} tokens (prompt "
                f"{self.settings.max_prompt_tokens}, each {each} {self.settings.max_new_tokens}, each "
                f"instruction {max(map(len, self.instructions))}) and the context holds {min(limits)}; lower "
                "max_prompt_tokens or max_new_tokens."
            )

    def _user(self, problem: str) -> dict[str, str]:
        # Not str.format: problems and prompts are full of braces.
        return {"role": "user", "content": self._first.replace("{problem}", problem)}

    def _goes_on(self, said: Sequence[int], turn: int) -> bool:
        """Whether a dialogue with verdicts does; nothing comes after nothing."""
        is_verdict = turn % 2 == 0
        return len(said) > 0 and not (is_verdict and self._judgement(said) != "wrong")

    def _judgement(self, said: Sequence[int]) -> str | None:
        return judgement(self.texts([[list(said)]])[0][0])

    def _asked_again(self, instruction: str) -> str:
        return self._render(
            [
                *self._opening,
                self._user("1"),
                {"role": "assistant", "content": ANSWER},
                {"role": "user", "content": instruction},
            ]
        )

    def _between_turns(self, text: str, instruction: str) -> list[int]:
        # The last stand-in before the instruction, which may well hold the same word.
        asked = text.rfind(instruction)
        answered = text.rfind(ANSWER, 0, max(asked, 0))
        if answered < 0:
            lost = (instruction if asked < 0 else ANSWER)[:60]
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path} leaves out or rewrites what is said: "
                f"expected {lost!r} in the dialogue that it writes, found none; word conversation.retry, "
                "verify and revise so that they stay as they are, or use another model."
            )
        ids = self._ids(text[answered + len(ANSWER) :])
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


def _read_instruction(settings: schema.Conversation, key: str) -> str:
    path = getattr(settings, key)
    if path is None:
        raise UserError(
            f"conversation.{key}: is null, and dialogues in which the model judges its own attempts need it; "
            f"write this prompt and name its file, as prompts/boxed/{key}.txt is one."
        )
    text = _read(path)
    if not text:
        raise UserError(
            f"{path}: is empty; expected the instruction before a later turn, such as `Check your answer`; "
            "write one."
        )
    return text


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
