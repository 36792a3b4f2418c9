"""SCoReTrainer: two-turn (or longer) on-policy reinforcement learning on `transformers.Trainer`.

An optimiser step, from top to bottom:

1. `get_batch_samples` takes the step's problems, samples K trajectories of all attempts for each in one
   large batch, judges every attempt, and turns rewards into returns and advantages over the whole step.
2. `compute_loss` scores a micro-batch, all turns in one forward, and adds the KL terms.
3. Everything else (accumulation, clipping, optimiser, schedule, distribution, logging) is the Trainer's.

Simplifications: one optimiser step a batch, so every step is strictly on-policy and needs no importance
ratios and no clipping of them; normalisers are those of the step, known before its first micro-batch,
so that micro-batches merely add up.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from score_core.checkpointing.resumable_trainer import ResumableTrainer
from score_core.config.schema import Evaluation, Stage
from score_core.distributed import gathered, keep_scores_whole, share_out, whole_state
from score_core.evaluation.evaluate import attempt_all
from score_core.evaluation.metrics import summarise
from score_core.files import replacing
from score_core.models.folders import save_model
from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rl.advantages import MovingAverage, advantages
from score_core.rl.batches import MicroBatch, PromptSchedule, cut, learning_rate_share
from score_core.rl.beta2 import Beta2Controller
from score_core.rl.logprobs import TokenScores, add_token_scoring, score
from score_core.rl.objective import Objective, kl_penalties, kl_term, policy_loss, token_weights
from score_core.rollout.conversation import Conversation
from score_core.rollout.roll_out import Rollout, roll_out
from score_core.rollout.trajectories import Trajectories
from score_core.seeding import stream

VALIDATION_KEYS = ("accuracy", "delta", "changed")


class SCoReTrainer(ResumableTrainer):
    """Maximises an `Objective` on a model's own attempts.

    Args:
        model: the policy; with PEFT adapters or without.
        args: its batch size counts *problems* a micro-batch.
        stage: the stage's settings.
        objective: what to maximise.
        controller: moves the objective's `beta2` after every step.
        reference: pi_ref as a frozen model; None takes the policy with its adapter switched off.
        name: of the stage; separates its random numbers from others'.
    """

    # Weights already hold the step's normaliser, so micro-batches are summed, not averaged.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        stage: Stage,
        objective: Objective,
        conversation: Conversation,
        grader: Grader,
        problems: Sequence[Problem],
        validation: Sequence[Problem],
        reference: PreTrainedModel | None,
        seed: int,
        name: str,
        sampling_batch_size: int,
        controller: Beta2Controller | None = None,
        **kwargs: Any,
    ) -> None:
        self.stage, self.controller = stage, controller
        self.objective: Objective = objective
        self.conversation, self.grader = conversation, grader
        self.problems, self.validation = problems, validation
        self.reference: nn.Module | None = reference
        self.seed, self.name = seed, name
        self.sampling_batch_size = sampling_batch_size
        self.moving_average = MovingAverage()
        self.schedule = PromptSchedule(problems, stage.steps * stage.prompts_per_step, seed, name)
        self.step_metrics: dict[str, float] = {}
        for network in (model, reference):
            if network is not None:
                add_token_scoring(network)
        super().__init__(
            model=model,
            args=args,
            train_dataset=self.schedule,
            eval_dataset=list(validation),  # only looked at by `evaluate` below
            data_collator=lambda places: {"places": torch.tensor(places)},
            **kwargs,
        )
        keep_scores_whole(self.accelerator)
        if reference is not None:
            self.reference = share_out(reference, self.accelerator)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Warm-up and linear decay to the stage's final rate; the library's own fails under DeepSpeed."""
        if self.lr_scheduler is None:
            trained: Any = optimizer or self.optimizer
            schedule = partial(learning_rate_share, stage=self.stage)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trained, schedule)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ------------------------------------------------------------------------ 1. a step's samples

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, MicroBatch]], None]:
        """Draws a step's problems, samples, judges, and cuts the step into micro-batches."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        places = [place for batch in batches for place in batch["places"].tolist()]
        rollout, given_N = self._roll_out(places)

        # Advantages and normalisers are those of the whole step, over all processes.
        samples = self.stage.samples_per_prompt
        group_N = self._all(torch.tensor(places, device=device).repeat_interleave(samples))
        rewards_NT, lengths_NT = self._all(rollout.rewards_NT), self._all(rollout.trajectories.lengths_NT)
        trained_NT = torch.ones_like(rewards_NT, dtype=torch.bool)
        trained_NT[:, 0] = ~self._all(given_N)
        returns_NT = self.objective.returns(rewards_NT)
        if self.stage.kl_estimator == "k1_in_reward" and any(self.objective.kl_weight):
            reference_logp_NT = self._all(self._reference_logp(rollout.trajectories))
            logp_NT = self._all(rollout.logp_NT)
            returns_NT = returns_NT - kl_penalties(self.objective, logp_NT, reference_logp_NT)
            self._note("kl", logp_NT - reference_logp_NT)
        advantage_NT = advantages(
            returns_NT,
            rewards_NT,
            group_N,
            trained_NT,
            self.stage.baseline,
            self.stage.baseline_later,
            self.moving_average,
        )
        longest = self.conversation.settings.max_new_tokens
        weight_NT = token_weights(self.stage.length_aggregation, lengths_NT, trained_NT, longest)
        self._note("reward", rewards_NT)
        self._note("return", returns_NT)
        self._note("accuracy", self._all(rollout.correct_NT))
        self._note("changed", self._all(rollout.changed_NT), first=2)
        self._note("length", lengths_NT)
        self._note("truncated", self._all(rollout.trajectories.truncated_NT))
        self._sums_T3 = torch.zeros(self.stage.attempts, 3, device=device)

        mine = slice(
            self.accelerator.process_index * len(rollout.trajectories),
            (self.accelerator.process_index + 1) * len(rollout.trajectories),
        )
        cuts = cut(rollout.trajectories, advantage_NT[mine], weight_NT[mine], len(batches))
        return [{"batch": batch} for batch in cuts], None

    def _roll_out(self, places: list[int]) -> tuple[Rollout, Tensor]:
        """K judged trajectories for each place, and which of them (N,) were given their first attempt."""
        stage, longest = self.stage, self.conversation.settings.max_new_tokens
        problems = [self.problems[self.schedule.order[place]] for place in places]

        def noise(at: int, use: str = "noise", attempts: int = stage.attempts) -> np.ndarray:
            # Hangs on the place alone: not on how places are batched or spread over processes.
            shape = (stage.samples_per_prompt, attempts, longest)
            return stream(self.seed, self.name, use, places[at]).random(shape)

        share = stage.offline_first_attempts
        offline = [stream(self.seed, self.name, "offline", place).random() < share for place in places]
        firsts = {}
        if share > 0:
            with self._sampled_reference() as reference:
                firsts = self._first_attempts(
                    reference, problems, offline, lambda at: noise(at, "offline noise", 1)
                )
        with gathered(self.model_wrapped, self.accelerator) as policy:
            rollout = roll_out(
                policy,
                self.conversation,
                self.grader,
                problems,
                stage.attempts,
                batch_size=self.sampling_batch_size,
                samples=stage.samples_per_prompt,
                noise=noise,
                temperature=stage.temperature,
                given=firsts.get,
            )
        given = torch.tensor(offline, device=rollout.logp_NT.device)
        return rollout, given.repeat_interleave(stage.samples_per_prompt)

    def _first_attempts(
        self,
        reference: PreTrainedModel,
        problems: list[Problem],
        wanted: list[bool],
        noise: Callable[[int], np.ndarray],
    ) -> dict[int, list[list[int]]]:
        """First attempts of `reference`, K for each wanted problem, by its index."""
        chosen = [at for at, want in enumerate(wanted) if want]
        if not chosen:
            return {}
        samples = self.stage.samples_per_prompt
        rollout = roll_out(
            reference,
            self.conversation,
            self.grader,
            [problems[at] for at in chosen],
            1,
            batch_size=self.sampling_batch_size,
            samples=samples,
            noise=lambda number: noise(chosen[number]),
            temperature=self.stage.temperature,
        )
        firsts = [row[0] for row in rollout.trajectories.attempts]
        return {at: firsts[n * samples : (n + 1) * samples] for n, at in enumerate(chosen)}

    def _reference_logp(self, trajectories: Trajectories) -> Tensor:
        """log pi_ref of each attempt, (N, T), for `k1_in_reward`."""
        size = max(1, self.args.per_device_train_batch_size * self.stage.samples_per_prompt)
        parts = []
        for start in range(0, len(trajectories), size):
            part = trajectories.select(range(start, min(start + size, len(trajectories))))
            with torch.no_grad(), self._as_reference() as model:
                logp_P = score(model, part, self.stage.temperature).logp_P
            sums_NT = torch.zeros(len(part), self.stage.attempts, device=logp_P.device)
            parts.append(sums_NT.index_put_(part.sampled, logp_P, accumulate=True))
        return torch.cat(parts)

    # --------------------------------------------------------------------- 2. a micro-batch's loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The micro-batch's share of the step's loss."""
        batch: MicroBatch = inputs["batch"]
        stage, trajectories = self.stage, batch.trajectories
        row_P, turn_P = trajectories.sampled
        reference = self._reference_scores(trajectories)
        scores = score(
            model,
            trajectories,
            stage.temperature,
            reference_logp_PV=reference.logp_PV if reference else None,
        )
        kl_P = None
        if reference is not None:
            kl_P = kl_term(stage.kl_estimator, scores.logp_P, reference.logp_P, scores.kl_P)
        beta_T = scores.logp_P.new_tensor(self.objective.kl_weight)
        loss = policy_loss(
            scores.logp_P,
            kl_P,
            advantage_P=batch.advantage_NT[row_P, turn_P],
            beta_P=beta_T[turn_P],
            weight_P=batch.weight_NT[row_P, turn_P],
        )
        self._add_up(scores, reference, turn_P)
        # Processes' gradients are averaged, and the weights are normalised over all of them.
        return loss * self.accelerator.num_processes

    def _reference_scores(self, trajectories: Trajectories) -> TokenScores | None:
        """The reference's scores of the sampled tokens; None where no KL enters the loss.

        Behind the last attempt whose KL counts nothing is computed; those tokens get zeros, which
        their coefficient of 0 cancels.
        """
        if self.stage.kl_estimator == "k1_in_reward" or not any(self.objective.kl_weight):
            return None
        last = max(turn for turn, beta in enumerate(self.objective.kl_weight, start=1) if beta)
        part = trajectories if last == self.stage.attempts else trajectories.upto(last)
        with torch.no_grad(), self._as_reference() as model:
            scores = score(model, part, self.stage.temperature, whole=self.stage.kl_estimator == "exact")
        if part is trajectories:
            return scores
        _, turn_P = trajectories.sampled
        counted_P = turn_P < last

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(len(turn_P), *values.shape[1:]).index_put_((counted_P,), values)

        whole = None if scores.logp_PV is None else spread(scores.logp_PV)
        return TokenScores(spread(scores.logp_P), spread(scores.entropy_P), logp_PV=whole)

    # ------------------------------------------------------------------------------ what is logged

    def _note(self, name: str, values_NT: Tensor, first: int = 1) -> None:
        """Notes the mean of each attempt's column; columns start at attempt `first`."""
        for attempt, mean in enumerate(values_NT.float().mean(0).tolist(), start=first):
            self.step_metrics[f"{name}_t{attempt}"] = mean

    def _add_up(self, scores: TokenScores, reference: TokenScores | None, turn_P: Tensor) -> None:
        """Sums KL, entropy and tokens of each attempt over the step's micro-batches."""
        kl_P = torch.zeros_like(scores.logp_P)
        if scores.kl_P is not None:
            kl_P = scores.kl_P
        elif reference is not None:
            # As a figure k3 is unbiased, whatever is in the loss.
            kl_P = kl_term("k3_in_loss", scores.logp_P, reference.logp_P, None)
        values_P3 = torch.stack([kl_P.detach(), scores.entropy_P, torch.ones_like(scores.entropy_P)], dim=-1)
        self._sums_T3.index_add_(0, turn_P, values_P3)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the step's own metrics to what the Trainer logs behind it."""
        if "loss" in logs:
            count = self.stage.prompts_per_step * self.stage.samples_per_prompt
            sums_T3 = self.accelerator.reduce(self._sums_T3, reduction="sum").tolist()
            for attempt, (kl, entropy, tokens) in enumerate(sums_T3, start=1):
                if self.objective.kl_weight[attempt - 1] and self.stage.kl_estimator != "k1_in_reward":
                    self.step_metrics[f"kl_t{attempt}"] = kl / count
                self.step_metrics[f"entropy_t{attempt}"] = entropy / max(tokens, 1)
            if self.controller is not None:
                self.step_metrics["beta2"] = self.controller.beta2
                self.objective = self.controller.observe(self.step_metrics["kl_t1"])
            logs = {**logs, **self.step_metrics}
        super().log(logs, start_time)

    # ------------------------------------------------------------------------ from step to step

    def carried(self) -> dict[str, Any]:
        """The controller's and the moving average's state, which checkpoints hold."""
        beta2 = self.controller.beta2 if self.controller is not None else None
        return {"beta2": beta2, "moving_average": self.moving_average.mean}

    def carry(self, state: dict[str, Any]) -> None:
        """Takes it up again; JSON has made text of the attempts' numbers."""
        self.moving_average.mean = {int(key): mean for key, mean in state["moving_average"].items()}
        if self.controller is not None:
            self.objective = self.controller.put(state["beta2"])

    # --------------------------------------------------------------------------------- validation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Greedy accuracy of all attempts on the validation problems."""
        share = -(-len(self.validation) // self.accelerator.num_processes)
        settings = Evaluation(attempts=self.stage.attempts, batch_size=min(self.sampling_batch_size, share))
        with gathered(self.model_wrapped, self.accelerator) as policy:
            table = attempt_all(policy, self.conversation, self.grader, self.validation, settings, self.seed)
        summary = summarise(table)
        metrics = {f"eval_{key}": value for key, value in summary.items() if key.startswith(VALIDATION_KEYS)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # -------------------------------------------------------------------------------- the two models

    @contextmanager
    def _as_reference(self) -> Iterator[nn.Module]:
        """pi_ref for scoring: the frozen model, or the policy with its adapter switched off."""
        if self.reference is not None:
            yield self.reference
        else:
            policy: Any = self.accelerator.unwrap_model(self.model)
            with policy.disable_adapter():
                yield policy

    @contextmanager
    def _sampled_reference(self) -> Iterator[PreTrainedModel]:
        """pi_ref for sampling, with all its weights on every process."""
        if self.reference is not None:
            with gathered(self.reference, self.accelerator) as whole:
                yield whole
        else:
            with self._as_reference(), gathered(self.model_wrapped, self.accelerator) as whole:
                yield whole

    def save_weights(self, folder: Path) -> None:
        """Writes the whole policy, or its adapter, to `folder`; every process must call, one writes."""
        state = whole_state(self.model_wrapped, self.accelerator)
        if self.accelerator.is_main_process:
            policy: Any = self.accelerator.unwrap_model(self.model)
            with replacing(folder) as temporary:
                save_model(policy, self.conversation.tokenizer, temporary, state)
        self.accelerator.wait_for_everyone()

    def _all(self, values: Tensor) -> Tensor:
        """Rows of all processes, in their order."""
        return self.accelerator.gather(values)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: the Trainer's formula knows nothing of sampling."""
        return 0
