"""Where the time of our two-turn step goes, by part and by kind of operation.

    .venv/bin/python -m benchmarks.step_profile ROOT

ROOT is a checkout with prepared data and a base model. Trains Stage II in this process under torch's profiler
and prints JSON: {part: {kind: seconds a step}}. What is in no operation, Python above all, is the kind
`other`, and what is outside the named parts the part `rest`.
"""

import json
import os
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from torch.profiler import ProfilerActivity, profile, record_function

from score_core.algorithms import SETTINGS, make_algorithm
from score_core.config.parsing import load_runtime, parse_config
from score_core.rl import training
from score_core.rl.stopwatch import LEARNING, Stopwatch
from score_core.rl.trainer import PolicyTrainer
from score_core.rollout.roll_out import GRADING, SAMPLING

STEPS = 6
REFERENCE, OPTIMISER, BACKWARD = "reference", "Optimizer.step", "autograd::engine"
# The innermost that an operation is in; of learning, what is in none of the others is the policy's forward.
PARTS = {
    REFERENCE: "reference's forward",
    BACKWARD: "backward",
    OPTIMISER: "optimiser",
    LEARNING: "policy's forward",
    SAMPLING: "sampling",
    GRADING: "grading",
}
KINDS = {
    "matrix products": r"aten::(mm|addmm|bmm|baddbmm)$",
    "attention": r"scaled_dot_product",
    "copies": r"aten::(copy_|cat|clone|gather|fill_|zero_|index\w*|_index\w*|repeat_interleave)$",
    "element-wise": r"aten::",
}


class Recorded(Stopwatch):
    """A stopwatch whose parts the profiler sees, too."""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """As the stopwatch's."""
        with record_function(name), super().part(name):
            yield


def seconds_by_part(root: Path) -> dict[str, dict[str, float]]:
    """Means of all steps; the rest is that of steps in the middle, beside which there is no validation."""
    os.chdir(root)
    settings = yaml.safe_load(Path("params.yaml").read_text())
    settings["training"] |= {"steps": STEPS, "validate_every": STEPS, "share_prompts": True}
    config = parse_config(settings, SETTINGS, "params.yaml")
    training.Stopwatch = Recorded  # type: ignore[misc]
    watched = record_function(REFERENCE)(PolicyTrainer._reference_scores)
    PolicyTrainer._reference_scores = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        folders = training.Folders(
            start=Path("models/base"),
            reference=Path("models/base"),
            data=Path("data/prepared"),
            output=out / "model",
            metrics=out / "metrics",
            work=out / "work",
        )
        algorithm = make_algorithm(config.stage("stage2"))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            training.train(
                config, load_runtime(Path("runtime.yaml")), folders, "stage2", algorithm, [Path(__file__)]
            )
        lines = (out / "work/timing.jsonl").read_text().splitlines()
    laps = [json.loads(line) for line in lines]
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in profiled.events():
        part = part_of(event)
        if part is not None and (kind := kind_of(event.name)):
            found[part][kind] += event.self_cpu_time_total / 1e6 / STEPS
    timed = (SAMPLING, GRADING, LEARNING)
    whole = {name: statistics.fmean(lap[name] for lap in laps) for name in timed}
    apart = {SAMPLING, GRADING, "optimiser"}
    for name in (SAMPLING, GRADING):
        found[name]["other"] = whole[name] - sum(found[name].values())
    learned = sum(sum(kinds.values()) for part, kinds in found.items() if part not in apart)
    found["learning"]["other"] = whole[LEARNING] - learned
    outside = statistics.fmean(lap["seconds"] - sum(lap[name] for name in timed) for lap in laps[1:-1])
    found["rest"]["other"] = outside - sum(found["optimiser"].values())
    return found


def part_of(event: torch.autograd.profiler_util.FunctionEvent) -> str | None:
    """The part that an operation is in; None outside of steps, as in validation."""
    at = event
    while at is not None:
        for name, part in PARTS.items():
            if at.name == name or (name in (OPTIMISER, BACKWARD) and at.name.startswith(name)):
                return part
        at = at.cpu_parent
    return None


def kind_of(name: str) -> str | None:
    """The first of `KINDS` that an operation's name fits."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), None)


if __name__ == "__main__":
    print(json.dumps(seconds_by_part(Path(sys.argv[1]))))
