"""SR-R1: its parts of the data, its refusals, and GRPO's gradient beside the one of TRL's own trainer."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from score_core.algorithms import make_algorithm
from score_core.errors import UserError
from score_core.models.folders import load_model
from score_core.rl.batches import PromptSchedule
from tests.score_core.rl.test_trainer import first_step, gradient, make_trainer
from tests.small_run import in_micro_batches, small_config

GRPO = {
    "baseline": "group_standardised",
    "length_aggregation": "sequence_mean",
    "kl_estimator": "k3_in_loss",
    "beta1": 0.3,  # a KL that counts beside the rewards
    "temperature": 0.9,
    "samples_per_prompt": 5,
    "importance_cap": None,
}
# Not one number for all that are right: every member of a group has another advantage.
TERMS = {"terms": [{"name": "match", "weight": 1.0}, {"name": "repetition", "weight": 1.0}]}


def test_the_parts_are_equal_disjoint_and_come_one_after_another() -> None:
    algorithm = make_algorithm(small_config(sr_r1={"of": 4, "parts": [3, 4]}).stage("sr_r1"))
    third, fourth = algorithm.parts(93)
    assert [*third, *fourth] == [*range(46, 93)] and {len(third), len(fourth)} <= {23, 24}
    order = PromptSchedule(algorithm.parts(93), 100, seed=3, name="stage2").order
    assert {*order[:50]} == {*third} and {*order[50:]} == {*fourth}, "each for half of the steps"
    assert order[:23] != order[23:46], "a fresh permutation for every pass"


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"sr_r1: parts: there is no part 5 of 4; name parts from 1 to 4"):
        small_config(sr_r1={"of": 4, "parts": [1, 5]})


def test_fewer_problems_than_parts_are_refused() -> None:
    algorithm = make_algorithm(small_config(sr_r1={"of": 4, "parts": [1, 2]}).stage("sr_r1"))
    said = r"sr_r1: part 1 of the 2 parts .* holds none; .* prepare more of them .* fewer parts \(sr_r1\.of\)"
    with pytest.raises(UserError, match=said):
        PromptSchedule(algorithm.parts(3), 10, seed=3, name="sr_r1")


def test_nobody_is_compared_with_nobody() -> None:
    judge = {"weight": 1.0, "prompt": "p", "max_new_tokens": 4, "temperature": 1.0, "both_orders": True}
    judge |= {"ties": True, "rating": "elo", "top": 1.0}
    alone = {"samples_per_prompt": 1, "baseline": "none", "baseline_later": "none"}
    with pytest.raises(
        UserError, match=r"reward.self_judge: compares .* single_turn.samples_per_prompt is 1"
    ):
        small_config(single_turn=alone, reward={"self_judge": judge})


def test_the_gradient_of_a_step_is_that_of_trls_grpo(small_run: Path, tmp_path: Path) -> None:
    """On equal samples and rewards; advantages differ by what divides them, K here and K - 1 in TRL."""
    config = small_config(sr_r1=GRPO)
    trainer = make_trainer(
        small_run, tmp_path / "ours", config, "sr_r1", disturbed=0.03, runtime=in_micro_batches(16)
    )
    credited: list[Any] = []
    credit = trainer.algorithm.credit
    trainer.algorithm.credit = lambda judged: credited.append((judged, credit(judged))) or credited[-1][1]
    drawn: list[Any] = []
    draw = trainer.sampler.draw
    trainer.sampler.draw = lambda *given: drawn.append(draw(*given)) or drawn[-1]
    batches = first_step(trainer)
    assert len(batches) > 1
    ours = gradient(trainer, batches)
    ((judged, made),) = credited
    rollout = drawn[0][0]
    rewards_N, ours_N = judged.rewards_NT[:, 0], made.advantage_MS[:, 0]
    assert len({*rewards_N.tolist()}) > 1

    trl = Trl(trainer, rollout, rewards_N.tolist(), small_run / "base", tmp_path / "trl")
    theirs_N = trl.inputs["advantages"]
    groups = rewards_N.reshape(-1, GRPO["samples_per_prompt"])
    by_k, by_k_less_1 = (
        (groups.std(1, correction=one) + 1e-4).repeat_interleave(groups.shape[1]) for one in (0, 1)
    )
    torch.testing.assert_close(ours_N * by_k, theirs_N * by_k_less_1)
    theirs = trl.gradient(ours_N)
    assert theirs.keys() == ours.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(
            ours[name], expected, rtol=1e-4, atol=1e-6, msg=lambda said, n=name: f"{n}: {said}"
        )
    unlike = trl.gradient(theirs_N)
    assert any(not torch.allclose(ours[name], unlike[name], rtol=1e-2) for name in ours)


class Trl:
    """A GRPOTrainer that is given what a step has sampled, and what each answer earns.

    Attributes:
        inputs: what its loss is made of, with advantages of its own.
    """

    def __init__(self, trainer: Any, rollout: Any, rewards: list[float], base: Path, work: Path) -> None:
        from trl import GRPOConfig, GRPOTrainer

        logging.getLogger("trl").setLevel(logging.ERROR)
        tokenizer = trainer.stage.conversation.tokenizer
        said = [(pieces[0][0], pieces[1][0]) for pieces in rollout.trajectories.segments]
        samples = GRPO["samples_per_prompt"]
        prompts = [tokenizer.decode(prompt) for prompt, _ in said[::samples]]

        def roll_out(asked: list[str], _: Any) -> dict[str, Any]:
            assert asked == [prompt for prompt in prompts for _ in range(samples)]
            return {
                "prompt_ids": [prompt for prompt, _ in said],
                "completion_ids": [answer for _, answer in said],
                "logprobs": None,
            }

        arguments = GRPOConfig(
            output_dir=str(work),
            per_device_train_batch_size=len(said),
            num_generations=samples,
            max_completion_length=trainer.stage.conversation.settings.max_new_tokens,
            loss_type="grpo",
            beta=GRPO["beta1"],
            use_bias_correction_kl=False,  # newer than GRPO and the system that this method is from
            temperature=GRPO["temperature"],
            top_k=0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
        )
        policy = load_model(base)  # from where TRL takes its reference
        policy.load_state_dict(trainer.model.state_dict())
        self.trainer = GRPOTrainer(
            policy,
            reward_funcs=lambda prompts, completions, **_: rewards,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            rollout_func=roll_out,
        )
        asked = [{"prompt": prompt} for prompt in prompts for _ in range(samples)]
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        self.inputs = self.trainer._generate_and_score_completions(asked)

    def gradient(self, advantage_N: Tensor) -> dict[str, Tensor]:
        """Of its loss with these advantages."""
        self.trainer.model.zero_grad()
        self.trainer._compute_loss(self.trainer.model, {**self.inputs, "advantages": advantage_N}).backward()
        return {name: weight.grad.clone() for name, weight in self.trainer.model.named_parameters()}
