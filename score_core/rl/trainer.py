"""PolicyTrainer: learning from sampled attempts, several of them in a dialogue, on `transformers.Trainer`.

An optimiser step, from top to bottom:

1. `get_batch_samples` takes the step's problems, samples K trajectories of all attempts for each, judges
   every attempt, and asks the algorithm what the tokens of each attempt are worth, over the whole step.
2. `compute_loss` scores a micro-batch, all attempts in one forward, and adds the KL terms.
3. Everything else (accumulation, clipping, optimiser, schedule, distribution, logging) is the Trainer's.

It knows no method: see `algorithm.py`. Simplifications: one optimiser step a batch, so what the policy
samples is strictly on-policy and needs no clipping; normalisers are those of the step, known before its first
micro-batch, so that micro-batches merely add up.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from score_core.checkpointing.resumable_trainer import ResumableTrainer
from score_core.config.schema import Evaluation
from score_core.distributed import adjust_strategy, full_state_dict, gather_weights
from score_core.evaluation.evaluate import attempt_all
from score_core.evaluation.metrics import summarise
from score_core.files import replacing
from score_core.models.folders import save_model
from score_core.rl.algorithm import Judged
from score_core.rl.batches import MicroBatch, PromptSchedule, learning_rate_share, split
from score_core.rl.dialogues import trained
from score_core.rl.figures import StepFigures
from score_core.rl.gap import GapMonitor, attempt_ratios
from score_core.rl.logprobs import (
    Distributions,
    TokenScores,
    add_token_scoring,
    attempt_logp,
    score,
    score_upto,
)
from score_core.rl.objective import kl_term, policy_loss
from score_core.rl.policy import Reference, switch_off_dropout
from score_core.rl.sampler import Stage, StepSampler
from score_core.rl.stopwatch import LEARNING, Stopwatch
from score_core.rollout.roll_out import Rollout

log = logging.getLogger(__name__)
VALIDATION_KEYS = ("accuracy", "delta", "changed", "revised")


class PolicyTrainer(ResumableTrainer):
    """Trains a policy as a stage's algorithm says.

    Args:
        model: the policy; with PEFT adapters or without.
        args: its data loader counts micro-batches; what is in them is sampled.
        stage: everything else.
        reference: pi_ref as a frozen model; None takes the policy with its adapter switched off.
        start: the same for the model that training starts from; for algorithms that sample it.
        stopwatch: times the parts of a step.
    """

    # Weights already hold the step's normaliser, so micro-batches are summed, not averaged.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        stage: Stage,
        reference: PreTrainedModel | None,
        start: PreTrainedModel | None = None,
        stopwatch: Stopwatch,
        **kwargs: Any,
    ) -> None:
        self.stage, self.settings, self.algorithm = stage, stage.settings, stage.algorithm
        positions = self.settings.steps * self.settings.prompts_per_step
        self.schedule = PromptSchedule(stage.parts, positions, stage.seed, stage.name)
        self.stopwatch = stopwatch
        # Checkpointed layers take no cache, in which a prompt's keys and values are kept.
        several = self.settings.samples_per_prompt > 1
        self.share_prompts = self.settings.share_prompts and several and not args.activation_checkpointing
        self.sampler = StepSampler(stage, self.schedule, stopwatch)
        switch_off_dropout(model)
        for network in (model, reference):
            if network is not None:
                add_token_scoring(network)
        config: Any = model.config
        use_cache = config.use_cache
        super().__init__(
            model=model,
            args=args,
            train_dataset=range(self.settings.steps * args.gradient_accumulation_steps * args.world_size),
            eval_dataset=list(stage.validation),  # only looked at by `evaluate` below
            data_collator=lambda micro_batches: {"micro_batches": torch.tensor(micro_batches)},
            **kwargs,
        )
        config.use_cache = use_cache  # the Trainer has switched it off, and it would be published so
        adjust_strategy(self.accelerator)
        self.reference = Reference(self, reference)
        self.start = Reference(self, start) if self.algorithm.samples_start else None

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and linear decay to the final rate; the library's own fails under DeepSpeed."""
        if self.lr_scheduler is None:
            trained: Any = optimizer or self.optimizer
            schedule = partial(learning_rate_share, settings=self.settings)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trained, schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ------------------------------------------------------------------------------ an optimiser step

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, MicroBatch]], None]:
        """A step's problems, sampled, judged, credited and split into micro-batches."""
        for _ in range(num_batches):
            next(epoch_iterator)
        share = self.settings.prompts_per_step // self.accelerator.num_processes
        first = self.state.global_step * self.settings.prompts_per_step
        positions = range(first, first + self.settings.prompts_per_step)
        mine = positions[self.accelerator.process_index * share :][:share]
        sampled = self._open_policy if self.start is None else self.start.sampling
        rollout, given_N = self.sampler.draw(mine, sampled, self.reference.sampling)
        judged = self._judged(rollout, given_N, torch.tensor(mine, device=device))
        credit = self.algorithm.credit(judged)
        self.figures = StepFigures.of(rollout, judged, credit, self.accelerator)
        self.gap = GapMonitor(
            self.stage.tolerated_gap, self.settings.importance_cap, self.stage.engine_name, self.accelerator
        )
        self.ratio_cap = credit.ratio_cap
        step = trained(rollout.trajectories, credit, self.stage, self.accelerator.process_index)
        parts = split(step, num_batches, self.share_prompts)
        self.unscored = len(parts)
        return [{"batch": part} for part in parts], None

    def training_step(self, *given: Any, **named: Any) -> Tensor:
        """Forward and backward of a micro-batch, timed."""
        with self.stopwatch.part(LEARNING):
            return super().training_step(*given, **named)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of the step's loss."""
        batch: MicroBatch = inputs["batch"]
        row_P, column_P = batch.trajectories.sampled
        reference = self._reference_scores(batch)
        scores = score(
            model,
            batch.trajectories,
            self.settings.temperature,
            reference=self._reference_distributions(reference),
            share_prompts=self.share_prompts,
        )
        kl_P = None
        if reference is not None:
            kl_P = kl_term(self.settings.kl_estimator, scores.logp_P, reference.logp_P, scores.kl_P)
        beta_T = scores.logp_P.new_tensor(self.algorithm.kl_weight)
        weight_P = batch.weight_NT[row_P, column_P]
        own_P, sampled_logp_P = batch.own_NT[row_P, column_P], batch.trajectories.logp_P
        importance_P = self.gap.add(scores.logp_P, sampled_logp_P, own_P)
        moved_P = torch.ones_like(importance_P)
        if self.ratio_cap is not None:
            moved_P = attempt_ratios(scores.logp_P, sampled_logp_P, row_P, column_P, self.ratio_cap)
        loss = policy_loss(
            scores.logp_P,
            kl_P,
            advantage_P=batch.advantage_NT[row_P, column_P],
            beta_P=beta_T[column_P],
            weight_P=weight_P * importance_P.where(own_P, moved_P),
        )
        self.figures.add_scores(scores, reference, column_P)
        self.unscored -= 1
        if not self.unscored:  # before the step's last backward, so before its update
            self.figures.values |= self.gap.check(self.state.global_step)
        # Processes' gradients are averaged, and the weights are normalised over all of them.
        return loss * self.accelerator.num_processes

    def _judged(self, rollout: Rollout, given_N: Tensor, positions: Tensor) -> Judged:
        """The step over all processes, in their order."""
        gather = self.accelerator.gather
        rewards_NT = gather(rollout.rewards_NT)
        sampled_NT = torch.ones_like(rewards_NT, dtype=torch.bool)
        sampled_NT[:, 0] = ~gather(given_N)
        reference_logp_NT = None
        if self.settings.kl_estimator == "k1_in_reward" and any(self.algorithm.kl_weight):
            size = -(-len(rollout.trajectories) // self.args.gradient_accumulation_steps)
            with self.reference.scoring() as model:
                logp_NT = attempt_logp(model, rollout.trajectories, self.settings.temperature, size)
            reference_logp_NT = gather(logp_NT)
        return Judged(
            group_N=gather(positions.repeat_interleave(self.settings.samples_per_prompt)),
            rewards_NT=rewards_NT,
            correct_NT=gather(rollout.correct_NT),
            # Of one attempt it has no columns, which NCCL's gathering cannot reshape.
            changed_NT=gather(rollout.changed_NT) if rollout.changed_NT.shape[1] else sampled_NT[:, 1:],
            lengths_NT=gather(rollout.trajectories.lengths_NT),
            sampled_NT=sampled_NT,
            logp_NT=gather(rollout.trajectories.logp_NT),
            reference_logp_NT=reference_logp_NT,
            longest=self.stage.conversation.settings.max_new_tokens,
        )

    def _reference_scores(self, batch: MicroBatch) -> TokenScores | None:
        """The reference's scores of the sampled tokens; None where no KL enters the loss."""
        if not any(self._kl_in_loss):
            return None
        last = max(attempt for attempt, there in enumerate(self._kl_in_loss, start=1) if there)
        options = {
            "keep_hidden": self.settings.kl_estimator == "exact",
            "share_prompts": self.share_prompts,
        }
        with self.reference.scoring() as model:
            return score_upto(model, batch.trajectories, self.settings.temperature, last, **options)

    def _reference_distributions(self, scores: TokenScores | None) -> Distributions | None:
        """For the exact KL; None where it is not asked for."""
        if scores is None or scores.hidden_PH is None:
            return None
        return Distributions(scores.hidden_PH, self.reference.project)

    @property
    def _kl_in_loss(self) -> list[bool]:
        in_reward = self.settings.kl_estimator == "k1_in_reward"
        return [bool(beta) and not in_reward for beta in self.algorithm.kl_weight]

    # ------------------------------------------------------------------------------------ what is logged

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the step's own figures to what the Trainer logs after it."""
        if "loss" in logs:
            trajectories = self.settings.prompts_per_step * self.settings.samples_per_prompt
            self.figures.finish(trajectories * self.algorithm.dialogues, self._kl_in_loss)
            logs = {**logs, **self.figures.values, **self.algorithm.observe(self.figures.values)}
        super().log(logs, start_time)

    def extra_state(self) -> dict[str, Any]:
        """The algorithm's, and what sampled, which checkpoints hold."""
        return {"algorithm": self.algorithm.state_dict(), "engine": self.stage.engine_name}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Hands it back to the algorithm; says so if something else samples from here on."""
        self.algorithm.load_state_dict(state["algorithm"])
        if state["engine"] != self.stage.engine_name:
            log.warning(
                "up to this checkpoint engine %s has sampled, and from here on %s does",
                state["engine"],
                self.stage.engine_name,
            )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Greedy accuracy of all attempts, of two at least, on the validation problems."""
        stage = self.stage
        share = -(-len(stage.validation) // self.accelerator.num_processes)
        rows = min(stage.sampling_batch_size, share)
        attempts, verifies = self.algorithm.longest, self.settings.verifies
        settings = Evaluation.greedy(attempts, verifies, self.settings.sampling, rows)
        with self._open_policy() as policy:
            stage.engine.load(policy)
            table = attempt_all(
                stage.engine, stage.conversation, stage.grader, stage.validation, settings, stage.seed
            )
        summary = summarise(table)
        metrics = {f"eval_{key}": value for key, value in summary.items() if key.startswith(VALIDATION_KEYS)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _open_policy(self) -> AbstractContextManager[PreTrainedModel]:
        """The policy for sampling, with all its weights on every process."""
        return gather_weights(self.model_wrapped, self.accelerator)

    def save_weights(self, folder: Path) -> None:
        """Writes the whole policy, or its adapter, to `folder`; every process must call, one writes."""
        state = full_state_dict(self.model_wrapped, self.accelerator)
        if self.accelerator.is_main_process:
            policy: Any = self.accelerator.unwrap_model(self.model)
            with replacing(folder) as temporary:
                save_model(policy, self.stage.conversation.tokenizer, temporary, state)
        self.accelerator.wait_for_everyone()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: the Trainer's formula knows nothing of sampling."""
        return 0
