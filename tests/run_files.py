"""The result files of a made-up run: what the stages before the report would have left.

Answers are drawn from a seeded generator; the metrics are counted here in plain Python, apart from
the code under test.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from score_core.algorithms import SETTINGS
from score_core.config.parsing import parse_config
from score_core.config.schema import Config
from tests import configs

# P(right at 1), then P(right next | wrong before), P(wrong next | right before).
MODELS = {"base": (0.47, 0.0, 0.0), "stage1": (0.42, 0.98, 0.004), "final": (0.74, 0.97, 0.004)}
OTHER_MODEL = (0.6, 0.3, 0.05)
# Percent right at attempts 1 and 2, before and after.
STAGES = {"stage1": ((47, 47), (42, 98)), "stage2": ((42, 98), (74, 99))}
OTHER_STAGE = ((47, 47), (60, 68))
Z = 1.959963984540054
STEPS = 80
SAMPLED_BY = {"engine": "builtin", "reproducible": True}

PARAMETERS: dict[str, Any] = {
    "profile": "default",
    "seed": 7,
    "data": {"source": "addition", "sizes": {"train": 100, "validation": 50, "test": 200}},
    "model": {"source": "addition"},
    "conversation": {
        "first": "prompts/addition/first.txt",
        "retry": "prompts/addition/retry.txt",
        "max_new_tokens": 8,
    },
    "reward": {"extractor": "last_number", "matcher": "integer"},
    "stage2": {"alpha": 3.0},
    "report": {"title": "Learning to correct a sum", "samples": 3},
}


def config(**changes: Any) -> Config:
    """The configuration that belongs to the files; a stage of training that is None is left out."""
    content = configs.content(**{**PARAMETERS, **changes})
    kept = {key: value for key, value in content.items() if key not in STAGES or value is not None}
    return parse_config(kept, SETTINGS, "test")


def write_run(
    root: Path,
    problems: int = 300,
    attempts: int = 2,
    took_off: bool = True,
    models: Sequence[str] = tuple(MODELS),
    stages: Sequence[str] = tuple(STAGES),
) -> None:
    """Writes metrics/ and generations/ below `root`."""
    (root / "metrics").mkdir(parents=True)
    (root / "generations").mkdir()
    for name in models:
        write_evaluation(root, name, make_rows(name, MODELS.get(name, OTHER_MODEL), problems, attempts))
    for name in stages:
        write_training(root, name, *STAGES.get(name, OTHER_STAGE), attempts, took_off)


def files(
    root: Path, models: Sequence[str] = tuple(MODELS), stages: Sequence[str] = tuple(STAGES)
) -> tuple[list[list[str]], list[list[str]]]:
    """The values of --evaluated and of --trained."""
    evaluated = [
        [name, str(root / "metrics" / f"{name}.json"), str(root / "generations" / f"{name}.parquet")]
        for name in models
    ]
    return evaluated, [[name, str(root / "metrics" / f"train_{name}")] for name in stages]


def make_rows(
    name: str, chances: tuple[float, float, float], problems: int, attempts: int
) -> list[dict[str, Any]]:
    """One row a problem, in the columns of generations/*.parquet."""
    sums, rng = random.Random(0), random.Random(name)
    rows = []
    for _ in range(problems):
        first, second = sums.randrange(10_000, 100_000), sums.randrange(10_000, 100_000)
        gold = f"{first + second:06}"
        row: dict[str, Any] = {"id": f"{first:x}{second:x}", "problem": f"{first}+{second}", "answer": gold}
        correct, text = False, ""
        for t in range(1, attempts + 1):
            if t == 1:
                now = rng.random() < chances[0]
            else:
                now = rng.random() >= chances[2] if correct else rng.random() < chances[1]
            if now:
                text = gold
            elif t == 1 or correct:
                place = rng.randrange(6)
                text = gold[:place] + str((int(gold[place]) + rng.randrange(1, 10)) % 10) + gold[place + 1 :]
            correct = now
            row |= {
                f"text_t{t}": text,
                f"extracted_t{t}": text,
                f"correct_t{t}": correct,
                f"reward_t{t}": float(correct),
                f"tokens_t{t}": 7,
                f"truncated_t{t}": False,
            }
        rows.append(row)
    return rows


def write_evaluation(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Writes the two files of one evaluation."""
    pd.DataFrame(rows).to_parquet(root / "generations" / f"{name}.parquet")
    (root / "metrics" / f"{name}.json").write_text(json.dumps(count_metrics(rows) | SAMPLED_BY))


def count_metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of some rows, by counting."""
    n = len(rows)
    attempts = max(int(key.rpartition("_t")[2]) for key in rows[0] if "_t" in key)
    metrics: dict[str, Any] = {"n": n, "attempts": attempts}
    ci95 = {}
    for t in range(1, attempts + 1):
        share = sum(row[f"correct_t{t}"] for row in rows) / n
        metrics[f"accuracy_t{t}"] = share
        ci95[f"accuracy_t{t}"] = wilson_by_hand(share, n)
        metrics[f"reward_t{t}"] = sum(row[f"reward_t{t}"] for row in rows) / n
        metrics[f"unparsable_t{t}"] = sum(row[f"extracted_t{t}"] is None for row in rows) / n
        metrics[f"truncated_t{t}"] = sum(row[f"truncated_t{t}"] for row in rows) / n
        metrics[f"length_t{t}"] = sum(row[f"tokens_t{t}"] for row in rows) / n
        if t > 1:
            metrics[f"changed_t{t}"] = (
                sum(row[f"extracted_t{t - 1}"] != row[f"extracted_t{t}"] for row in rows) / n
            )
            pairs = [(row[f"text_t{t - 1}"], row[f"text_t{t}"]) for row in rows]
            different = (sum(x != y for x, y in zip(a, b, strict=False)) / 12 for a, b in pairs)
            metrics[f"edit_distance_ratio_t{t}"] = sum(different) / n
    for t in range(2, attempts + 1):
        suffix = "" if t == 2 else f"_t{t}"
        up = sum(row[f"correct_t{t}"] and not row[f"correct_t{t - 1}"] for row in rows) / n
        down = sum(row[f"correct_t{t - 1}"] and not row[f"correct_t{t}"] for row in rows) / n
        middle, half = agresti_min_by_hand(up * n, down * n, n)
        values = {"delta": up - down, "delta_i_to_c": up, "delta_c_to_i": down}
        metrics |= {key + suffix: value for key, value in values.items()}
        ci95["delta" + suffix] = [middle - half, middle + half]
        ci95["delta_i_to_c" + suffix] = wilson_by_hand(up, n)
        ci95["delta_c_to_i" + suffix] = wilson_by_hand(down, n)
    return metrics | {"ci95": ci95}


def agresti_min_by_hand(gained: float, lost: float, n: int) -> tuple[float, float]:
    """Middle and half width of Wald's interval, from a table with 1/2 more in each of its four cells."""
    up, down, n = (gained + 0.5) / (n + 2), (lost + 0.5) / (n + 2), n + 2
    return up - down, Z * ((up + down - (up - down) ** 2) / n) ** 0.5


def wilson_by_hand(share: float, n: int) -> list[float]:
    """The two roots p of (share - p)^2 = Z^2 p (1 - p) / n."""
    a, b, c = 1 + Z**2 / n, -(2 * share + Z**2 / n), share**2
    root = max(b**2 - 4 * a * c, 0) ** 0.5
    return [(-b - root) / (2 * a), (-b + root) / (2 * a)]


def write_training(
    root: Path, stage: str, start: tuple[int, int], end: tuple[int, int], attempts: int, took_off: bool
) -> None:
    """Writes the three files of one training stage; accuracies go from `start` to `end` percent."""
    rng = random.Random(stage)

    def accuracy(t: int, step: int) -> float:
        at = min(t, 2) - 1
        progress = 1 / (1 + 2.718 ** (-(step - 35) / 4)) if stage == "stage1" else step / STEPS
        return (start[at] + (end[at] - start[at]) * progress) / 100 if step else start[at] / 100

    validation = []
    for step in range(0, STEPS + 1, 10):
        row: dict[str, float] = {"step": step}
        row |= {
            f"accuracy_t{t}": round(accuracy(t, step) * 500 + rng.uniform(-5, 5) * (step > 0)) / 500
            for t in range(1, attempts + 1)
        }
        row["delta"] = row["accuracy_t2"] - row["accuracy_t1"]
        row["delta_c_to_i"] = 0.004 if step else 0.0
        row["delta_i_to_c"] = row["delta"] + row["delta_c_to_i"]
        row["changed_t2"] = row["delta_i_to_c"]
        validation.append(row)
    curve = []
    for step in range(1, STEPS + 1):
        row = {
            "step": step,
            "loss": rng.gauss(0, 0.1),
            "grad_norm": 0.3 + rng.random(),
            "learning_rate": 1e-3,
        }
        for t in range(1, attempts + 1):
            row[f"reward_t{t}"] = accuracy(t, step) - 0.03 + rng.gauss(0, 0.02)
            row[f"return_t{t}"] = row[f"reward_t{t}"]
            row[f"kl_t{t}"] = (0.05 if t == 1 else 6 * accuracy(t, step)) * (0.8 + 0.4 * rng.random())
            row[f"entropy_t{t}"] = (0.3 if t == 1 else 0.25 * (1.2 - accuracy(t, step))) + rng.gauss(0, 0.01)
        curve.append(row)
    summary = {
        "steps": STEPS,
        "selected_step": STEPS,
        "validation_delta": validation[-1]["delta"],
    } | SAMPLED_BY
    if stage == "stage1":
        summary["took_off"] = took_off
    metrics = root / "metrics"
    (metrics / f"train_{stage}.json").write_text(json.dumps(summary))
    pd.DataFrame(curve).to_csv(metrics / f"train_{stage}_curve.csv", index=False)
    pd.DataFrame(validation).to_csv(metrics / f"train_{stage}_validation.csv", index=False)
