"""TRL's GRPOTrainer at the work that benchmarks/step.py times, and what the machine can do at most.

    .venv/bin/python -m benchmarks.rivals {two_turn,one_turn,ceilings} ROOT STEPS

ROOT is a checkout with prepared data and a base model. Prints a line of JSON: the seconds of each step, or
the ceilings; torchrun starts it in several processes. `two_turn` does the same work as our Stage II: a first
attempt, the retry instruction, a second attempt, the shaped reward, the KL to the base model. `one_turn`
samples as many tokens as two attempts, in one. Both with TRL's own sampling by `generate`, one micro-batch a
step as ours, and no logging.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.ceilings import CORES, ceilings
from score_core.algorithms import SETTINGS
from score_core.config.parsing import load_config
from score_core.config.schema import Config
from score_core.models.folders import load_model, load_tokenizer
from score_core.problems import Problem, read_problems
from score_core.rewards.grader import Grader
from score_core.rewards.group import Ungraded
from score_core.rollout.conversation import Conversation, load_conversation

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.monotonic())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]


class Work:
    """The embedded default's problems, said and graded as our own trainer does it."""

    def __init__(self, root: Path, config: Config) -> None:
        self.config, self.settings = config, config.stage("stage2")
        self.conversation: Conversation = load_conversation(root / "models/base", config.conversation, 2)
        self.tokenizer = self.conversation.tokenizer
        self.grader = Grader(config.reward, training=True)
        problems = read_problems(root / "data/prepared", "train")
        self.by_prompt: dict[str, Problem] = {
            self.tokenizer.decode(self.conversation.prompt(problem)): problem for problem in problems
        }
        self.longest = config.conversation.max_new_tokens

    def rewards(self, prompts: list[str], texts: list[str]) -> list[float]:
        """1 for a right answer, else 0."""
        groups = [
            Ungraded(self.by_prompt[prompt], 1, texts=[text], tokens=[[]], truncated=[False])
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        return [graded[0].reward for graded in self.grader.grade(groups)]


def generate(trainer: GRPOTrainer, prompts: list[list[int]], longest: int) -> list[list[int]]:
    """An attempt for each prompt, its end token included, by the model's own `generate`."""
    tokenizer, width = trainer.processing_class, max(map(len, prompts))
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    rows = [[pad] * (width - len(ids)) + ids for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    with torch.no_grad():
        whole = trainer.model.generate(
            input_ids=torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            generation_config=trainer.generation_config,
            max_new_tokens=longest,
        )
    found = [row[width:] for row in whole.tolist()]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in found]


def two_turns(work: Work) -> Callable[[list[str], GRPOTrainer], dict[str, Any]]:
    """TRL's `rollout_func` for two attempts; instructions between them are masked."""

    def roll_out(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        first_prompts = [work.tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
        firsts = generate(trainer, first_prompts, work.longest)
        between = [work.conversation.continuation(ids, 1) for ids in firsts]
        second_prompts = [
            prompt + first + middle
            for prompt, first, middle in zip(first_prompts, firsts, between, strict=True)
        ]
        seconds = generate(trainer, second_prompts, work.longest)
        triples = list(zip(firsts, between, seconds, strict=True))
        return {
            "prompt_ids": first_prompts,
            "completion_ids": [first + middle + second for first, middle, second in triples],
            "env_mask": [[1] * len(a) + [0] * len(b) + [1] * len(c) for a, b, c in triples],
            "logprobs": None,
            "attempts": [[first, second] for first, _, second in triples],
        }

    return roll_out


def train(root: Path, steps: int, turns: int) -> list[float]:
    """Seconds between the ends of TRL's steps."""
    config = load_config(root / "params.yaml", SETTINGS)
    work, settings = Work(root, config), config.stage("stage2")

    def shaped(prompts: list[str], attempts: list[list[list[int]]], **_: Any) -> list[float]:
        first, second = (
            work.rewards(prompts, work.tokenizer.batch_decode(ids, skip_special_tokens=True))
            for ids in zip(*attempts, strict=True)
        )
        return [b + settings.alpha * (b - a) for a, b in zip(first, second, strict=True)]

    def plain(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return work.rewards(prompts, completions)

    rows, clock = settings.prompts_per_step * settings.samples_per_prompt, Clock()
    sampled = 2 * (config.data.digits + 2)  # both sums with a carry, and both end tokens
    arguments = GRPOConfig(
        output_dir=str(root / "trl"),
        max_steps=steps,
        per_device_train_batch_size=rows // PROCESSES,
        gradient_accumulation_steps=1,
        num_generations=settings.samples_per_prompt,
        max_completion_length=sampled,
        generation_kwargs=None if turns == 2 else {"min_new_tokens": sampled},
        temperature=settings.temperature,
        top_k=0,
        beta=settings.beta1,
        learning_rate=settings.learning_rate,
        max_grad_norm=settings.max_grad_norm,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        optim="adamw_torch_fused",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
    )
    GRPOTrainer(
        load_model(root / "models/base"),
        reward_funcs=shaped if turns == 2 else plain,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": list(work.by_prompt)}),
        processing_class=load_tokenizer(root / "models/base"),
        rollout_func=two_turns(work) if turns == 2 else None,
        callbacks=[clock],
    ).train()
    return clock.seconds


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(CORES // PROCESSES)
    what, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    turns = {"two_turn": 2, "one_turn": 1}
    found = ceilings() if what == "ceilings" else train(folder, count, turns[what])
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))
