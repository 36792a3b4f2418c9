"""One step of the trainer against an oracle in plain torch, and what every step must hold to."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from score_core.algorithms import make_algorithm
from score_core.algorithms.policy_gradient import PolicyGradient
from score_core.checkpointing.checkpoints import Checkpoints
from score_core.config.runtime import Runtime
from score_core.config.schema import Config
from score_core.models.folders import end_token_ids, load_model, load_tokenizer
from score_core.problems import read_problems
from score_core.rewards.grader import Grader
from score_core.rewards.terms import TERMS
from score_core.rl.arguments import batch_sizes, micro_batches, training_arguments
from score_core.rl.objective import Objective
from score_core.rl.sampler import Stage
from score_core.rl.stopwatch import Stopwatch
from score_core.rl.trainer import PolicyTrainer
from score_core.rollout.conversation import Conversation
from score_core.rollout.engines.builtin import BuiltinEngine
from tests.score_core.rl.oracle import CREDIT, Adam, Formula, Said, read, step
from tests.small_run import LONGEST, RUNTIME, in_micro_batches, small_config


def make_trainer(
    run: Path,
    work: Path,
    config: Config,
    name: str,
    *,
    objective: Objective | None = None,
    disturbed: float = 0.0,
    tied: bool = True,
    ends: tuple[str, ...] = (),
    lora: bool = False,
    runtime: Runtime = RUNTIME,
    sampling_batch_size: int = 1024,
) -> PolicyTrainer:
    """A trainer of the stage `name`, from the base model in `run`.

    Args:
        objective: in place of the stage's own.
        disturbed: how far the policy is moved away from the reference.
        tied: whether the output layer shares its weights with the embeddings.
        ends: tokens that end an attempt, beside the end token.
    """
    settings = config.stage(name)
    tokenizer = load_tokenizer(run / "base")
    base = run / ("base" if tied else "untied")
    model: Any = load_model(base)
    reference = None if lora else load_model(base)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    if disturbed:
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(disturbed * torch.randn_like(parameter))
    count = micro_batches(settings, batch_sizes(config, runtime, base, LONGEST).tokens, LONGEST)
    stage = Stage(
        name="test",
        seed=7,
        algorithm=PolicyGradient(settings, objective) if objective else make_algorithm(settings),
        conversation=Conversation(
            config.conversation,
            tokenizer,
            [
                *end_token_ids(tokenizer, model.generation_config),
                *tokenizer.convert_tokens_to_ids(list(ends)),
            ],
            verifies=settings.verifies,
        ),
        grader=Grader(config.reward),
        problems=read_problems(run / "data", "train"),
        validation=read_problems(run / "data", "validation")[:8],
        engine=BuiltinEngine(),
        engine_name="builtin",
        tolerated_gap=1e-4,
        sampling_batch_size=sampling_batch_size,
    )
    return PolicyTrainer(
        model,
        training_arguments(config, runtime, settings, work, "test", count),
        stage=stage,
        reference=reference,
        start=load_model(base) if stage.algorithm.samples_start and not lora else None,
        stopwatch=Stopwatch(),
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
    trainer: PolicyTrainer, batches: list[dict[str, Any]], formula: Formula
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The same gradient, and the step's figures, in plain torch (see `oracle.py`)."""
    loss, figures = step(trainer.model, trainer.reference.model, dialogues(trainer, batches), formula)
    assert 0 < figures["accuracy_t1"] < 1, "a step without both outcomes proves nothing"
    trainer.model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}, figures


def dialogues(trainer: PolicyTrainer, batches: list[dict[str, Any]]) -> list[Said]:
    """What was said in a step."""
    tokenizer = trainer.stage.conversation.tokenizer
    return [
        read(tokenizer, segments, given=not weight_T[0])
        for batch in batches
        for segments, weight_T in zip(
            batch["batch"].trajectories.segments, batch["batch"].weight_NT, strict=True
        )
    ]


ESTIMATORS = ("exact", "k1_in_reward", "k2_in_loss", "k3_in_loss")
# Eq. 3 and 4 as settings of a stage, and as the numbers that the oracle puts into its formulas.
EQUATIONS = {
    "stage1": ({"beta1": 0.01, "beta2": 0.3}, Formula((0.0, 1.0), (0.3, 0.01))),
    "stage2": (
        {"beta1": 0.02, "alpha": 3.0, "gamma": 0.2},
        Formula((1.0, 1.0), (0.02, 0.02), alpha=3.0, gamma=0.2),
    ),
}


@pytest.fixture
def even_answers_earn_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A term of the reward that has nothing to do with being right."""
    monkeypatch.setitem(
        TERMS, "even", lambda group: [text[-1:] in ("0", "2", "4", "6", "8") for text in group.texts]
    )


EVEN = {"terms": [{"name": "match", "weight": 1.0}, {"name": "even", "weight": CREDIT}]}


@pytest.mark.usefixtures("even_answers_earn_something")
@pytest.mark.parametrize("stage_name", EQUATIONS)
@pytest.mark.parametrize(
    ("estimator", "tied", "rows_at_a_time", "later", "aggregation", "share_prompts"),
    [
        ("exact", True, 8, "leave_one_out_given_first", "sequence_sum", True),
        ("exact", False, 512, "leave_one_out_given_first", "sequence_sum", False),
        ("k1_in_reward", False, 512, "leave_one_out", "token_mean", True),
        ("k2_in_loss", False, 8, "leave_one_out", "sequence_mean", False),
        ("k3_in_loss", True, 512, "leave_one_out_given_first", "constant", True),
    ],
)
def test_gradient_and_figures_are_those_of_a_plain_oracle(
    small_run: Path,
    tmp_path: Path,
    stage_name: str,
    estimator: str,
    tied: bool,
    rows_at_a_time: int,
    later: str,
    aggregation: str,
    share_prompts: bool,
) -> None:
    settings, formula = EQUATIONS[stage_name]
    settings = {
        **settings,
        "temperature": 0.6,
        "kl_estimator": estimator,
        "baseline_later": later,
        "length_aggregation": aggregation,
        "share_prompts": share_prompts,
    }
    config = small_config(reward=EVEN, **{stage_name: settings})
    formula = replace(
        formula,
        temperature=0.6,
        estimator=estimator,
        credit=CREDIT,
        given_first=later == "leave_one_out_given_first",
        aggregation=aggregation,
        longest=config.conversation.max_new_tokens,
    )
    trainer = make_trainer(
        small_run,
        tmp_path,
        config,
        stage_name,
        disturbed=0.03,
        tied=tied,
        ends=("7",),  # or all sums would be equally long
        runtime=in_micro_batches(rows_at_a_time),
    )
    batches = first_step(trainer)
    assert len(batches) == (1 if rows_at_a_time == 512 else 4)
    lengths_NT = torch.cat([batch["batch"].trajectories.lengths_NT for batch in batches])
    assert lengths_NT.min() < lengths_NT.max() < config.conversation.max_new_tokens
    ours = gradient(trainer, batches)
    trainer.log({"loss": 0.0})
    logged = trainer.state.log_history[-1]
    plain, figures = oracle_gradient(trainer, batches, formula)
    assert ("lm_head.weight" in plain) != tied
    for name, expected in plain.items():
        torch.testing.assert_close(
            ours[name], expected, rtol=2e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    del figures["loss"]
    assert {name: logged[name] for name in figures} == pytest.approx(figures, rel=1e-3, abs=1e-5)


@pytest.mark.usefixtures("even_answers_earn_something")
@pytest.mark.parametrize(("rows_at_a_time", "share_prompts"), [(512, True), (8, False)])
def test_steps_are_those_of_plain_adam_behind_clipping(
    small_run: Path, tmp_path: Path, rows_at_a_time: int, share_prompts: bool
) -> None:
    """Three whole steps, some first attempts given: norms, figures and weights are the oracle's own."""
    settings = {
        "steps": 3,
        "temperature": 0.6,
        "learning_rate": 1e-3,
        "final_learning_rate": 1.0,
        "adam_betas": [0.8, 0.95],
        "weight_decay": 1.0,
        "max_grad_norm": 15.0,
        "offline_first_attempts": 0.3,
        "baseline_later": "leave_one_out",
        "validate_every": 3,
        "share_prompts": share_prompts,
    }
    equation, formula = EQUATIONS["stage2"]
    config = small_config(reward=EVEN, stage2=equation | settings)
    runtime = in_micro_batches(rows_at_a_time)
    trainer = make_trainer(small_run, tmp_path, config, "stage2", disturbed=0.03, runtime=runtime)
    model, reference = deepcopy(trainer.model), deepcopy(trainer.reference.model)
    before = deepcopy(model.state_dict())
    steps = []
    get_batch_samples = trainer.get_batch_samples

    def watched(*args: Any) -> Any:
        found = get_batch_samples(*args)
        steps.append(dialogues(trainer, found[0]))
        return found

    trainer.get_batch_samples = watched
    trainer.train()
    adam = Adam(model, rate=1e-3, betas=(0.8, 0.95), decay=1.0, clip=15.0)
    formula = replace(formula, temperature=0.6, credit=CREDIT)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    norms = []
    prompt, order = trainer.stage.conversation.prompt, trainer.schedule.order
    for at, (said, entry) in enumerate(zip(steps, logged, strict=True)):
        problems = [trainer.stage.problems[number] for number in order[8 * at : 8 * at + 8]]
        expected = sorted(prompt(problem) for problem in problems for _ in range(4))
        assert sorted(one.pieces[0] for one in said) == expected
        loss, figures = step(model, reference, said, formula)
        norms.append(adam.step(loss))
        assert entry["grad_norm"] == pytest.approx(norms[-1], rel=1e-3)
        assert {name: entry[name] for name in figures} == pytest.approx(figures, rel=1e-3, abs=1e-4)
    assert min(norms) < 15 < max(norms), "wanted: steps that are clipped, and others"
    assert 0 < sum(one.given for said in steps for one in said) < 3 * 32
    ours = trainer.model.state_dict()
    for name, expected in model.state_dict().items():
        # By the norm: where a gradient is nothing but rounding, Adam makes a whole step of it.
        moved = (expected - before[name]).norm()
        assert (ours[name] - expected).norm() < 0.01 * moved, name


def test_recomputed_activations_change_nothing(small_run: Path, tmp_path: Path) -> None:
    """Checkpointed layers drop caches with a warning, so prompts are not shared there."""
    found = []
    for recomputed in (False, True):
        launch = RUNTIME.launch.model_copy(update={"gradient_checkpointing": recomputed})
        runtime = RUNTIME.model_copy(update={"launch": launch})
        config = small_config(stage2={"share_prompts": True})
        trainer = make_trainer(small_run, tmp_path, config, "stage2", disturbed=0.03, runtime=runtime)
        if recomputed:
            trainer.model.gradient_checkpointing_enable()  # as `Trainer.train` does
        trainer.model.train()
        found.append(gradient(trainer, first_step(trainer)))
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=2e-4, atol=1e-5, msg=name)


def test_alpha_0_without_kl_is_two_turn_reinforce(small_run: Path, tmp_path: Path) -> None:
    config = small_config(stage2={"baseline_later": "leave_one_out", "beta1": 0.0, "alpha": 0.0})
    trainer = make_trainer(small_run, tmp_path, config, "stage2")
    batches = first_step(trainer)
    plain, _ = oracle_gradient(trainer, batches, Formula((1.0, 1.0), (0.0, 0.0)))
    ours = gradient(trainer, batches)
    for name, expected in plain.items():
        torch.testing.assert_close(ours[name], expected, rtol=2e-4, atol=2e-6)


def test_the_kl_of_the_first_attempt_has_a_gradient_in_stage_1(small_run: Path, tmp_path: Path) -> None:
    config = small_config(stage1={"beta1": 0.0, "beta2": 0.5})
    trainer = make_trainer(small_run, tmp_path, config, "stage1", disturbed=0.01)
    batches = [
        {"batch": replace(b["batch"], advantage_NT=torch.zeros_like(b["batch"].advantage_NT))}
        for b in first_step(trainer)
    ]
    # Nothing is rewarded here: whatever moves the weights is the KL of attempt 1.
    assert max(float(grad.abs().max()) for grad in gradient(trainer, batches).values()) > 1e-4


@pytest.mark.parametrize(("lora", "share_prompts"), [(False, True), (True, True), (False, False)])
def test_kl_is_exactly_zero_while_policy_and_reference_are_equal(
    small_run: Path, tmp_path: Path, lora: bool, share_prompts: bool
) -> None:
    for estimator in ("exact", "k2_in_loss", "k3_in_loss"):
        config = small_config(stage2={"kl_estimator": estimator, "share_prompts": share_prompts})
        objective = Objective((0.0, 0.0), (1.0, 1.0))  # the loss is the KL alone
        trainer = make_trainer(small_run, tmp_path, config, "stage2", objective=objective, lora=lora)
        for batch in first_step(trainer):
            assert trainer.compute_loss(trainer.model, batch).item() == 0.0


def test_the_reference_is_only_asked_for_what_counts(small_run: Path, tmp_path: Path) -> None:
    """With no KL on attempt 2 the reference sees `[x, y1]` only, and the loss is the same."""
    seen: list[list[int]] = []
    losses = []
    for beta1 in (0.0, 1e-30):
        config = small_config(stage1={"beta1": beta1, "beta2": 0.5})
        trainer = make_trainer(small_run, tmp_path, config, "stage1", disturbed=0.01)
        read: list[int] = []
        trainer.reference.model.model.register_forward_pre_hook(
            lambda module, args, kwargs, read=read: read.append(kwargs["input_ids"].numel()), with_kwargs=True
        )
        seen.append(read)
        losses.append([trainer.compute_loss(trainer.model, b).item() for b in first_step(trainer)])
    assert 0 < sum(seen[0]) < sum(seen[1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_offline_first_attempts_come_from_the_base_and_are_not_trained(
    small_run: Path, tmp_path: Path
) -> None:
    config = small_config(stage2={"offline_first_attempts": 1.0, "beta1": 0.1})
    drawn = []
    for disturbed in (0.0, 0.3):
        trainer = make_trainer(small_run, tmp_path, config, "stage2", disturbed=disturbed)
        batch = first_step(trainer)[0]["batch"]
        assert torch.all(batch.weight_NT[:, 0] == 0)
        assert torch.all(batch.advantage_NT[:, 0] == 0)
        assert torch.all(batch.weight_NT[:, 1] > 0)
        order = sorted(range(len(batch.trajectories)), key=lambda n: batch.trajectories.segments[n][:2])
        drawn.append([batch.trajectories.segments[n][:2] for n in order])
    # However far the policy has gone, the first attempts are those of the base model.
    assert drawn[0] == drawn[1]


def test_what_is_sampled_does_not_depend_on_how_it_is_batched(small_run: Path, tmp_path: Path) -> None:
    config = small_config()
    drawn = []
    for sampling, micro in ((1024, 512), (8, 4)):
        trainer = make_trainer(
            small_run,
            tmp_path,
            config,
            "stage2",
            runtime=in_micro_batches(micro),
            sampling_batch_size=sampling,
        )
        drawn.append(sorted(p for b in first_step(trainer) for p in b["batch"].trajectories.segments))
    assert drawn[0] == drawn[1]
