"""One step of the trainer against an oracle in plain torch, and what every step must hold to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from score_core.algorithms.policy_gradient import PolicyGradient
from score_core.checkpointing.checkpoints import Checkpoints
from score_core.config.runtime import Runtime
from score_core.config.training import Training
from score_core.models.folders import end_token_ids, load_model, load_tokenizer
from score_core.problems import read_problems
from score_core.rewards.grader import Grader
from score_core.rl.arguments import training_arguments
from score_core.rl.objective import Objective, stage_one, stage_two
from score_core.rl.sampler import Stage
from score_core.rl.trainer import PolicyTrainer
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.builtin import BuiltinEngine
from tests.small_run import RUNTIME, small_config


def make_trainer(
    run: Path,
    work: Path,
    settings: Training,
    objective: Objective,
    *,
    disturbed: float = 0.0,
    lora: bool = False,
    runtime: Runtime = RUNTIME,
    sampling_batch_size: int = 1024,
) -> PolicyTrainer:
    """A trainer from the base model in `run`; `disturbed` moves the policy away from the reference."""
    config = small_config()
    tokenizer = load_tokenizer(run / "base")
    model: Any = load_model(run / "base")
    reference = None if lora else load_model(run / "base")
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    if disturbed:
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(disturbed * torch.randn_like(parameter))
    stage = Stage(
        name="test",
        seed=7,
        algorithm=PolicyGradient(settings, objective),
        conversation=Conversation(
            config.conversation, tokenizer, end_token_ids(tokenizer, model.generation_config)
        ),
        grader=Grader(config.reward),
        problems=read_problems(run / "data", "train"),
        validation=read_problems(run / "data", "validation")[:8],
        engine=BuiltinEngine(),
        sampling_batch_size=sampling_batch_size,
    )
    return PolicyTrainer(
        model,
        training_arguments(config, runtime, settings, work, "test"),
        stage=stage,
        reference=reference,
        checkpoints=Checkpoints(work / "checkpoints", runtime.checkpoints),
    )


def first_step(trainer: PolicyTrainer) -> list[dict[str, Any]]:
    """The micro-batches of the run's first step."""
    loader = iter(trainer.get_train_dataloader())
    batches, _ = trainer.get_batch_samples(
        loader, trainer.args.gradient_accumulation_steps, trainer.args.device
    )
    return batches


def gradient(trainer: PolicyTrainer, batches: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The gradient of the step's loss."""
    trainer.model.zero_grad()
    for batch in batches:
        trainer.compute_loss(trainer.model, batch).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.grad is not None
    }


def oracle_gradient(
    trainer: PolicyTrainer, batches: list[dict[str, Any]], betas: list[float]
) -> dict[str, Any]:
    """The same gradient from whole forwards, one trajectory and one attempt at a time, with loops."""
    stage, model, reference = trainer.settings, trainer.model, trainer.reference.model
    rows = [row for batch in batches for row in batch["batch"].trajectories.segments]
    tokenizer, by_prompt = trainer.stage.conversation.tokenizer, {}
    for number, row in enumerate(rows):
        by_prompt.setdefault(tuple(row[0][0]), []).append(number)
    prompt = trainer.stage.conversation.prompt
    answers = {tuple(prompt(problem)): problem.references[0] for problem in trainer.stage.problems}
    right = []
    for row in rows:
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids, turn in row if turn]
        gold = int(answers[tuple(row[0][0])])
        right.append([float(text.isdigit() and int(text) == gold) for text in texts])
    assert 0 < sum(map(sum, right)) < 2 * len(rows), "a step without both outcomes proves nothing"

    objective = trainer.algorithm.objective
    loss = torch.zeros(())
    for group in by_prompt.values():
        assert len(group) == stage.samples_per_prompt
        for number in group:
            returns = {
                other: (
                    objective.reward_weight[0] * right[other][0],
                    objective.reward_weight[1] * right[other][1]
                    + objective.alpha * (right[other][1] - right[other][0]),
                )
                for other in group
            }
            for attempt in (0, 1):
                others = [returns[other][attempt] for other in group if other != number]
                advantage = returns[number][attempt] - sum(others) / len(others)
                pieces = rows[number]
                context = [token for ids, _ in pieces[: 2 * attempt + 1] for token in ids]
                sampled = pieces[2 * attempt + 1][0]
                ids = torch.tensor([context + sampled])
                at = slice(len(context) - 1, len(context) + len(sampled) - 1)
                logp = model(input_ids=ids).logits[0, at].log_softmax(-1)
                with torch.no_grad():
                    logp_reference = reference(input_ids=ids).logits[0, at].log_softmax(-1)
                chosen = logp[range(len(sampled)), sampled].sum()
                kl = (logp.exp() * (logp - logp_reference)).sum()
                loss = loss - advantage * chosen + betas[attempt] * kl
    model.zero_grad()
    (loss / len(rows)).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("stage_name", ["stage1", "stage2"])
@pytest.mark.parametrize("micro_batch_size", [512, 8])
def test_gradient_is_that_of_a_plain_oracle(
    small_run: Path, tmp_path: Path, stage_name: str, micro_batch_size: int
) -> None:
    config = small_config(
        stage1={"baseline_later": "leave_one_out"}, stage2={"baseline_later": "leave_one_out"}
    )
    if stage_name == "stage1":
        objective, betas = stage_one(2, beta1=0.01, beta2=0.3), [0.3, 0.01]
    else:
        objective, betas = stage_two(2, beta1=0.02, alpha=3, gamma=0), [0.02, 0.02]
    trainer = make_trainer(
        small_run,
        tmp_path,
        config.stage(stage_name),
        objective,
        disturbed=0.01,
        runtime=RUNTIME.model_copy(update={"micro_batch_size": micro_batch_size}),
    )
    batches = first_step(trainer)
    assert len(batches) == (1 if micro_batch_size == 512 else 4)
    ours, plain = gradient(trainer, batches), oracle_gradient(trainer, batches, betas)
    for name, expected in plain.items():
        torch.testing.assert_close(
            ours[name], expected, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_alpha_0_without_kl_is_two_turn_reinforce(small_run: Path, tmp_path: Path) -> None:
    config = small_config(stage2={"baseline_later": "leave_one_out"})
    objective = stage_two(2, beta1=0, alpha=0, gamma=0)
    trainer = make_trainer(small_run, tmp_path, config.stage("stage2"), objective)
    batches = first_step(trainer)
    ours, plain = gradient(trainer, batches), oracle_gradient(trainer, batches, [0.0, 0.0])
    for name, expected in plain.items():
        torch.testing.assert_close(ours[name], expected, rtol=2e-4, atol=2e-6)


def test_the_kl_of_the_first_attempt_has_a_gradient_in_stage_1(small_run: Path, tmp_path: Path) -> None:
    config = small_config()
    trainer = make_trainer(
        small_run, tmp_path, config.stage("stage1"), stage_one(2, beta1=0, beta2=0.5), disturbed=0.01
    )
    batches = [
        {"batch": replace(b["batch"], advantage_NT=torch.zeros_like(b["batch"].advantage_NT))}
        for b in first_step(trainer)
    ]
    # Nothing is rewarded here: whatever moves the weights is the KL of attempt 1.
    assert max(float(grad.abs().max()) for grad in gradient(trainer, batches).values()) > 1e-4


@pytest.mark.parametrize("lora", [False, True])
def test_kl_is_exactly_zero_while_policy_and_reference_are_equal(
    small_run: Path, tmp_path: Path, lora: bool
) -> None:
    for estimator in ("exact", "k2_in_loss", "k3_in_loss"):
        config = small_config(stage2={"kl_estimator": estimator})
        objective = Objective((0.0, 0.0), (1.0, 1.0))  # the loss is the KL alone
        trainer = make_trainer(small_run, tmp_path, config.stage("stage2"), objective, lora=lora)
        for batch in first_step(trainer):
            assert trainer.compute_loss(trainer.model, batch).item() == 0.0


def test_the_reference_is_only_asked_for_what_counts(small_run: Path, tmp_path: Path) -> None:
    """With no KL on attempt 2 the reference sees `[x, y1]` only, and the loss is the same."""
    config = small_config()
    seen = []
    losses = []
    for beta1 in (0.0, 1e-30):
        trainer = make_trainer(
            small_run, tmp_path, config.stage("stage1"), stage_one(2, beta1=beta1, beta2=0.5), disturbed=0.01
        )
        trainer.reference.model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        losses.append([trainer.compute_loss(trainer.model, b).item() for b in first_step(trainer)])
    assert seen[0] < seen[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_offline_first_attempts_come_from_the_base_and_are_not_trained(
    small_run: Path, tmp_path: Path
) -> None:
    config = small_config(stage2={"offline_first_attempts": 1.0})
    objective = stage_two(2, beta1=0.1, alpha=3, gamma=0)
    drawn = []
    for disturbed in (0.0, 0.3):
        trainer = make_trainer(small_run, tmp_path, config.stage("stage2"), objective, disturbed=disturbed)
        batch = first_step(trainer)[0]["batch"]
        assert torch.all(batch.weight_NT[:, 0] == 0)
        assert torch.all(batch.advantage_NT[:, 0] == 0)
        assert torch.all(batch.weight_NT[:, 1] > 0)
        order = sorted(range(len(batch.trajectories)), key=lambda n: batch.trajectories.segments[n][:2])
        drawn.append([batch.trajectories.segments[n][:2] for n in order])
    # However far the policy has gone, the first attempts are those of the base model.
    assert drawn[0] == drawn[1]


def test_k1_in_reward_takes_the_sequence_kl_off_the_return(small_run: Path, tmp_path: Path) -> None:
    baselines = {"baseline": "none", "baseline_later": "none"}
    config = small_config(stage2={"kl_estimator": "k1_in_reward", **baselines})
    objective = stage_two(2, beta1=0.7, alpha=0, gamma=0)
    trainer = make_trainer(small_run, tmp_path, config.stage("stage2"), objective, disturbed=0.01)
    batch = first_step(trainer)[0]["batch"]
    for row, pieces in enumerate(batch.trajectories.segments):
        for attempt in (0, 1):
            context = [token for ids, _ in pieces[: 2 * attempt + 1] for token in ids]
            sampled = pieces[2 * attempt + 1][0]
            at = slice(len(context) - 1, len(context) + len(sampled) - 1)
            ids = torch.tensor([context + sampled])
            with torch.no_grad():
                policy, base = (
                    model(input_ids=ids).logits[0, at].log_softmax(-1)[range(len(sampled)), sampled].sum()
                    for model in (trainer.model, trainer.reference.model)
                )
            reward = float(batch.advantage_NT[row, attempt] + 0.7 * (policy - base))
            assert min(abs(reward), abs(reward - 1)) < 1e-4


def test_what_is_sampled_does_not_depend_on_how_it_is_batched(small_run: Path, tmp_path: Path) -> None:
    config = small_config()
    objective = stage_two(2, beta1=0, alpha=3, gamma=0)
    drawn = []
    for sampling, micro in ((1024, 512), (8, 4)):
        trainer = make_trainer(
            small_run,
            tmp_path,
            config.stage("stage2"),
            objective,
            runtime=RUNTIME.model_copy(update={"micro_batch_size": micro}),
            sampling_batch_size=sampling,
        )
        drawn.append(sorted(p for b in first_step(trainer) for p in b["batch"].trajectories.segments))
    assert drawn[0] == drawn[1]
