"""The term `gold_judge`: a model that is shown the gold answer says whether an attempt has it.

For training alone, where a verifier cannot read answers: what such a judge believes is no accuracy, and a
policy learns to please it. So it stays out of evaluation, whose answers `reward.matcher` compares.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from score_core.config.reward import Judge, JudgeTerm
from score_core.errors import UserError, refusing
from score_core.hub import snapshot
from score_core.models.folders import FILES, check_model, context_limit, load_model, load_tokenizer
from score_core.rewards.group import Group
from score_core.rewards.judge_prompt import JudgePrompt

YES, NO = ("yes", "Yes", "YES"), ("no", "No", "NO")
PARTS = ("problem", "gold", "answer")


def judge_folder(settings: Judge) -> Path:
    """Where the judge stands, fetched from the hub if need be."""
    if settings.revision is None:
        return Path(settings.path)
    return snapshot("model", settings.path, settings.revision, FILES)


class GoldJudge:
    """1 where the judge holds "yes" for more probable than "no" as the first word of its reply, else 0.

    Making one costs nothing; the model is loaded when the first group comes, whole on every process.

    Raises:
        UserError: the prompt cannot be used, or there is no model in that folder.
    """

    def __init__(self, settings: JudgeTerm) -> None:
        self._settings = settings.judge
        self._prompt = JudgePrompt(self._settings.prompt, PARTS, "judge.prompt")
        if self._settings.revision is None:
            check_model(judge_folder(self._settings))

    def __call__(self, group: Group) -> list[float]:
        """Judges all members side by side.

        Raises:
            UserError: the judge cannot be loaded, or what it is shown is longer than its context.
        """
        problem = group.problem
        rows = [self._read(problem.problem, problem.answer, text) for text in group.texts]
        return [float(verdict) for verdict in self._says_yes(rows)]

    @cached_property
    def _folder(self) -> Path:
        return judge_folder(self._settings)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._folder)

    @cached_property
    def _model(self) -> Any:
        from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

        from score_core.distributed import init_processes

        if is_deepspeed_zero3_enabled():
            raise UserError(
                "runtime.yaml: launch.strategy: zero3 splits every model that is loaded, and each process "
                "asks gold_judge on its own; set launch.strategy to zero2, ddp or fsdp2."
            )
        return load_model(self._folder, self._settings.dtype, init_processes().device).requires_grad_(False)

    @cached_property
    def _words(self) -> tuple[list[int], list[int]]:
        """First tokens of the ways to say yes, and of those to say no."""
        ids = [
            sorted({self._tokenizer(word, add_special_tokens=False).input_ids[0] for word in words})
            for words in (YES, NO)
        ]
        if set(ids[0]) & set(ids[1]):
            raise UserError(
                f"judge.path: {self._folder}: yes and no begin with the same token there; name another model."
            )
        return ids[0], ids[1]

    def _read(self, problem: str, gold: str, answer: str) -> list[int]:
        """What the judge reads, as token ids, with its reply opened."""
        values = {"problem": problem, "gold": gold, "answer": answer}
        text = self._prompt.filled(values, self._tokenizer)
        with refusing(
            f"the chat template of {self._folder} refuses the judge's prompt", "name another judge"
        ):
            ids: list[int] = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": text}],
                add_generation_prompt=True,
                return_dict=False,
                **self._settings.template_options,
            )
        limit = context_limit(self._model.config)
        if limit is not None and len(ids) >= limit:
            raise UserError(
                f"judge.path: {self._folder}: its context holds {limit} tokens, and a problem with its gold "
                f"answer and an attempt takes {len(ids)}; name another, or lower conversation.max_new_tokens."
            )
        return ids

    def _says_yes(self, rows: Sequence[list[int]]) -> list[bool]:
        """For each prompt, whether yes is the more probable reply."""
        import torch

        yes, no = self._words
        width, device = max(map(len, rows)), self._model.device
        pad = self._tokenizer.pad_token_id
        ids_NL = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask_NL = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        with torch.no_grad():
            logits_NV = self._model(
                input_ids=ids_NL,
                attention_mask=mask_NL,
                position_ids=(mask_NL.cumsum(-1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=1,
            ).logits[:, -1]
        yes_N, no_N = (logits_NV[:, words].float().logsumexp(-1) for words in (yes, no))
        verdicts: list[bool] = (yes_N > no_N).tolist()
        return verdicts
