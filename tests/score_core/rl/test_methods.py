"""One step of each method against its formula in plain torch: which attempts, in which dialogue, how much.

Of the code under test it takes the attempts that were sampled. Who is right, which dialogues are made of
them, log-probabilities, baselines and normalisation are its own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from score_core.embedded.addition_model import ASSISTANT, CHECK, USER
from score_core.rl.trainer import PolicyTrainer
from tests.score_core.rl.oracle import mean, scores_of
from tests.score_core.rl.test_trainer import first_step, gradient, make_trainer
from tests.small_run import in_micro_batches, small_config

Ids = list[int]
# Of each problem the ids of its prompt and its samples, each a list of (ids, right) of its attempts.
Said = list[tuple[Ids, list[list[tuple[Ids, bool]]]]]


def step_of(trainer: PolicyTrainer) -> tuple[Said, dict[str, Tensor]]:
    """What was sampled in the run's first step, and the gradient that was made of it."""
    drawn, draw = [], trainer.sampler.draw

    def watched(*given: Any) -> Any:
        drawn.append(draw(*given))
        return drawn[-1]

    trainer.sampler.draw = watched
    batches = first_step(trainer)
    tokenizer = trainer.stage.conversation.tokenizer
    problems: dict[str, tuple[Ids, list[list[tuple[Ids, bool]]]]] = {}
    for pieces in drawn[0][0].trajectories.segments:
        text = tokenizer.decode(pieces[0][0], skip_special_tokens=True)
        right = sum(map(int, text.rstrip("=").split("+")))
        answers = [ids for ids, attempt in pieces if attempt]
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        judged = [
            (ids, said.isdigit() and int(said) == right) for ids, said in zip(answers, texts, strict=True)
        ]
        problems.setdefault(text, (pieces[0][0], []))[1].append(judged)
    return list(problems.values()), gradient(trainer, batches)


def instruction(trainer: PolicyTrainer) -> Ids:
    """What stands between two attempts that were ended."""
    return trainer.stage.conversation.tokenizer(f"{USER}{CHECK}<|end|>{ASSISTANT}").input_ids


def likelihood(trainer: PolicyTrainer, pairs: list[tuple[Ids, Ids, Ids]], aggregation: str) -> Tensor:
    """The mean negative log-likelihood of second attempts, given prompt and first attempt."""
    assert pairs, "a step without anything chosen proves nothing"
    asked, whole = instruction(trainer), trainer.reference.model
    logp = [scores_of(trainer.model, whole, [x, y1, asked, y2], 1, 1.0)[0] for x, y1, y2 in pairs]
    if aggregation == "token_mean":
        return -torch.stack([each.sum() for each in logp]).sum() / sum(len(each) for each in logp)
    return -torch.stack([each.sum() for each in logp]).mean()


def corrections(keep_right: bool) -> Callable[[Said], list[tuple[Ids, Ids, Ids]]]:
    """STaR's, and STaSC's where rewards are 0 and 1."""

    def pairs(said: Said) -> list[tuple[Ids, Ids, Ids]]:
        return [
            (x, first[0], last[0])
            for x, samples in said
            for first, last in samples
            if last[1] and (keep_right or not first[1])
        ]

    return pairs


def wrong_and_right(keep_right: bool) -> Callable[[Said], list[tuple[Ids, Ids, Ids]]]:
    """Pair-SFT's: each wrong attempt with a right one in turn."""

    def pairs(said: Said) -> list[tuple[Ids, Ids, Ids]]:
        found = []
        for x, samples in said:
            right = [ids for ((ids, is_right),) in samples if is_right]
            wrong = [ids for ((ids, is_right),) in samples if not is_right]
            found += [(x, ids, right[n % len(right)]) for n, ids in enumerate(wrong) if right]
            if keep_right:
                found += [(x, ids, right[(n + 1) % len(right)]) for n, ids in enumerate(right)]
        return found

    return pairs


SUPERVISED = {
    "star": ("star", {}, corrections(False)),
    "star with right pairs": ("star", {"keep_right": True}, corrections(True)),
    "stasc, improving": ("stasc", {}, corrections(False)),
    "stasc, non-decreasing": ("stasc", {"filter": "non_decreasing"}, corrections(True)),
    "stasc, fixed first attempts": (
        "stasc",
        {"filter": "non_decreasing", "offline_first_attempts": 1.0},
        corrections(True),
    ),
    "pair_sft": ("pair_sft", {"length_aggregation": "token_mean"}, wrong_and_right(False)),
    "pair_sft with right pairs": ("pair_sft", {"keep_right": True}, wrong_and_right(True)),
}


@pytest.mark.parametrize("case", SUPERVISED)
def test_supervised_methods_maximise_the_likelihood_of_what_they_choose(
    small_run: Path, tmp_path: Path, case: str
) -> None:
    section, settings, pairs = SUPERVISED[case]
    # Many samples: the base model hardly ever corrects. The policy is another one than the one sampled from.
    config = small_config(**{section: {"prompts_per_step": 64, "samples_per_prompt": 32, **settings}})
    trainer = make_trainer(
        small_run, tmp_path, config, section, disturbed=0.03, runtime=in_micro_batches(100)
    )
    said, ours = step_of(trainer)
    trainer.model.zero_grad()
    likelihood(trainer, pairs(said), settings.get("length_aggregation", "sequence_sum")).backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("section", ["star", "pair_sft"])
def test_supervised_methods_sample_the_model_that_training_starts_from(
    small_run: Path, tmp_path: Path, section: str
) -> None:
    config = small_config()
    drawn = [
        step_of(make_trainer(small_run, tmp_path, config, section, disturbed=disturbed))[0]
        for disturbed in (0.0, 0.5)
    ]
    assert drawn[0] == drawn[1]
    plain = [
        step_of(make_trainer(small_run, tmp_path, config, "two_turn", disturbed=0.1 * ruined))[0]
        for ruined in (0, 1)
    ]
    assert plain[0] != plain[1]


@pytest.mark.parametrize("lora", [False, True])
def test_a_step_of_pairs_has_no_gap_to_watch(small_run: Path, tmp_path: Path, lora: bool) -> None:
    """The policy did not sample these attempts there: what it thinks of them is no sign of a fault."""
    config = small_config(pair_sft={"keep_right": True})
    trainer = make_trainer(small_run, tmp_path, config, "pair_sft", disturbed=0.3, lora=lora)
    for batch in first_step(trainer):
        trainer.compute_loss(trainer.model, batch)
    assert trainer.figures.values["gap_mean"] == 0.0


def test_of_one_attempt_nothing_is_gathered_that_nccl_cannot_reshape(small_run: Path, tmp_path: Path) -> None:
    """As accelerate gathers from several GPUs: a tensor's rows are made again of what came in a row."""
    trainer = make_trainer(small_run, tmp_path, small_config(), "single_turn", disturbed=0.03)
    trainer.accelerator.gather = lambda found: found.flatten().view(-1, *found.shape[1:])
    assert first_step(trainer)[0]["batch"].advantage_NT.shape[1] == 1


@pytest.mark.parametrize("baseline", ["leave_one_out", "group_standardised"])
def test_single_turn_rl_is_reinforce_on_the_first_attempt(
    small_run: Path, tmp_path: Path, baseline: str
) -> None:
    settings = {"baseline": baseline, "beta1": 0.05, "kl_estimator": "k3_in_loss"}
    config = small_config(single_turn=settings)
    trainer = make_trainer(
        small_run, tmp_path, config, "single_turn", disturbed=0.03, runtime=in_micro_batches(8)
    )
    said, ours = step_of(trainer)
    terms = []
    for x, samples in said:
        rewards = [float(right) for ((_, right),) in samples]
        for n, ((ids, _),) in enumerate(samples):
            if baseline == "leave_one_out":
                advantage = rewards[n] - mean([r for m, r in enumerate(rewards) if m != n])
            else:
                spread = mean([(r - mean(rewards)) ** 2 for r in rewards]) ** 0.5
                advantage = (rewards[n] - mean(rewards)) / (spread + 1e-4)
            logp_L, reference_L, *_ = scores_of(trainer.model, trainer.reference.model, [x, ids], 0, 1.0)
            d_L = reference_L - logp_L
            terms.append(0.05 * (d_L.exp() - d_L - 1).sum() - advantage * logp_L.sum())
    trainer.model.zero_grad()
    torch.stack(terms).mean().backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(("later", "estimator"), [("leave_one_out", "exact"), ("none", "k1_in_reward")])
def test_pag_is_reinforce_on_each_turn_that_took_place(
    small_run: Path, tmp_path: Path, later: str, estimator: str
) -> None:
    settings = {"baseline_later": later, "beta1": 0.05, "kl_estimator": estimator}
    trainer = make_trainer(
        small_run / "verifying",
        tmp_path,
        small_config(pag=settings),
        "pag",
        disturbed=0.03,
        runtime=in_micro_batches(8),
    )
    batches, terms, seen = first_step(trainer), [], []
    ours, tokenizer = gradient(trainer, batches), trainer.stage.conversation.tokenizer
    dialogues = [pieces for batch in batches for pieces in batch["batch"].trajectories.segments]
    rows = []  # of each dialogue what was said, as pieces, and what each turn earned
    for pieces in dialogues:
        ids = [part for part, _ in pieces]
        asked, first, verdict, last = (
            tokenizer.decode(ids[at], skip_special_tokens=True) for at in (0, 1, 3, 5)
        )
        gold = sum(map(int, asked.rstrip("=").split("+")))
        right = [text.isdigit() and int(text) == gold for text in (first, last)]
        assert (last == "") == (verdict != "wrong")
        told = verdict in ("right", "wrong") and (verdict == "right") == right[0]
        rows.append((ids, [float(right[0]), float(told), float(right[1])], 3 if verdict == "wrong" else 2))

    def net(ids: list[Ids], earned: list[float], t: int) -> float:
        """What a turn earned, less its KL where that is in the reward."""
        logp_L, reference_L, *_ = scores_of(trainer.model, trainer.reference.model, ids, t, 1.0)
        return earned[t] - 0.05 * float((logp_L - reference_L).detach().sum()) * (estimator == "k1_in_reward")

    for n, (ids, earned, turns) in enumerate(rows):
        for t in range(turns):
            logp_L, _, kl_L, _ = scores_of(trainer.model, trainer.reference.model, ids, t, 1.0)
            others = [row for m, row in enumerate(rows) if m != n and row[0][0] == ids[0] and row[2] > t]
            paid = net(ids, earned, t)
            if t == 0 or later == "leave_one_out":
                paid -= mean([net(row[0], row[1], t) for row in others])
            terms.append(-paid * logp_L.sum())
            if estimator == "exact":
                terms.append(0.05 * kl_L.sum())
        seen.append((turns, earned[turns - 1]))
    assert len({*seen}) == 4, "both verdicts and both of their outcomes must have been seen"
    trainer.model.zero_grad()
    (torch.stack(terms).sum() / len(rows)).backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=5e-4, atol=2e-5)


@pytest.mark.parametrize("cap", [1.1, 1e9])
def test_recombination_scores_second_attempts_after_another_first_one(
    small_run: Path, tmp_path: Path, cap: float
) -> None:
    alpha = 3.0
    config = small_config(
        stage2={"recombine": cap, "alpha": alpha, "beta1": 0.0, "baseline_later": "leave_one_out"}
    )
    trainer = make_trainer(small_run, tmp_path, config, "stage2", disturbed=0.1, runtime=in_micro_batches(8))
    said, ours = step_of(trainer)
    asked, whole, terms, ratios = instruction(trainer), trainer.reference.model, [], []

    def logp(pieces: list[Ids]) -> Tensor:
        return scores_of(trainer.model, whole, pieces, len(pieces) // 2 - 1, 1.0)[0].sum()

    for x, samples in said:
        first, last = ([sample[t] for sample in samples] for t in (0, 1))
        count = len(samples)

        def paid(i: int, j: int, first=first, last=last) -> float:
            return (1 + alpha) * last[j][1] - alpha * first[i][1]

        for i in range(count):
            j = (i + 1) % count
            advantage = first[i][1] - mean([first[k][1] for k in range(count) if k != i])
            terms.append(-advantage * logp([x, first[i][0]]))
            advantage = paid(i, i) - mean([paid(k, k) for k in range(count) if k != i])
            terms.append(-0.5 * advantage * logp([x, first[i][0], asked, last[i][0]]))
            advantage = paid(i, j) - mean([paid(i, k) for k in range(count) if k != j])
            here = logp([x, first[i][0], asked, last[j][0]])
            there = logp([x, first[j][0], asked, last[j][0]])
            ratios.append(min(cap, float((here - there).detach().exp())))
            terms.append(-0.5 * advantage * ratios[-1] * here)
    assert min(ratios) < 0.5 and (max(ratios) > 1.1 if cap > 2 else cap in ratios)
    trainer.model.zero_grad()
    (torch.stack(terms).sum() / sum(len(samples) for _, samples in said)).backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=5e-4, atol=2e-5)
