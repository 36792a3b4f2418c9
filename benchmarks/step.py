"""How fast we train two turns, beside what a user would pick instead, and what the machine could do.

    .venv/bin/python -m benchmarks.step [--json FILE]            # half an hour on 2 quiet cores

On the embedded default's model, problems and batch (64 prompts x 8), in one clone of the checkout, these
take turns:

* ours: Stage II, two turns, with the KL to the base model and the shaped reward, and with
  `training.share_prompts`, as all profiles have it but the default, whose bits it would change;
* ours_whole_dialogues: the same without;
* trl_two_turn: TRL's GRPOTrainer doing the same two turns, through its `rollout_func` (benchmarks/rivals.py);
* trl_one_turn: TRL's GRPOTrainer doing one turn of as many sampled tokens;

each by one process of two threads, and by two of one thread.

All in one environment, with the kernels that the processor is best at, as every profile computes but the
default: what its pinned ones cost is in benchmarks/rate.csv. The machine's ceilings, a square matrix product
and a copy in memory, are measured in the same run. Model FLOPs are those of the dialogues' tokens, 10 a
weight and token (sampling 2, reference 2, forward and backward 6) and those of attention, without the saving
of shared prompts. Where the time of a step goes is seen by torch's profiler (benchmarks/step_profile.py).
Writes benchmarks/step.csv and benchmarks/step_profile.csv.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.ceilings import CORES
from benchmarks.tables import markdown
from score_core.algorithms import SETTINGS
from score_core.config.parsing import load_config
from score_core.files import write_json
from score_core.rl.stopwatch import PARTS
from score_core.rollout.conversation import load_conversation
from tasks.runner.command_line import ENVIRONMENT, KERNELS
from tasks.runner.exits import parser_of
from tests.test_pipeline import Checkout

STEPS, WARM_UP = 20, 4
OURS, WHOLE, TWO_TURNS, ONE_TURN = "ours", "ours_whole_dialogues", "trl_two_turn", "trl_one_turn"
PROCESSES = {1: "", 2: "_2_processes"}
TRAIN = (
    "tasks.train models/stage2 --name stage2 --start models/base --reference models/base "
    "--data data/prepared --metrics metrics/train_stage2 "
    f"--set training.steps={STEPS} --set training.validate_every={STEPS}"
)
# An empty value is none to these libraries, and keeps the stage from setting one.
KERNELS_OF_ITS_OWN = dict.fromkeys(KERNELS, "")


def seconds_of(contestant: str, processes: int, root: Path) -> tuple[float, dict[str, float]]:
    """The median step's seconds, and of ours the shares of its parts."""
    if contestant.startswith("trl"):
        found = rival(contestant.removeprefix("trl_"), root, processes)
        return statistics.median(found[WARM_UP:]), {}
    shutil.rmtree(root / ".runs", ignore_errors=True)  # or it goes on from the last round's checkpoint
    set_threads(root, CORES // processes)
    several = {"SCORE_LAUNCH_STRATEGY": "ddp", "SCORE_LAUNCH_PROCESSES": str(processes)}
    environment = os.environ | KERNELS_OF_ITS_OWN | (several if processes > 1 else {})
    sharing = ["--set", f"training.share_prompts={str(contestant == OURS).lower()}"]
    subprocess.run(
        [sys.executable, "-m", *TRAIN.split(), *sharing],
        cwd=root, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    lines = (root / ".runs/train_stage2/timing.jsonl").read_text().splitlines()
    # The last step is left out as the first ones are: validation is in its neighbourhood.
    laps = [json.loads(line) for line in lines][WARM_UP:-1]
    whole = sum(lap["seconds"] for lap in laps)
    shares = {part: sum(lap[part] for lap in laps) / whole for part in PARTS}
    return statistics.median(lap["seconds"] for lap in laps), shares


def set_threads(root: Path, count: int) -> None:
    """Has the checkout's stages compute on so many."""
    runtime = root / "runtime.yaml"
    runtime.write_text(re.sub(r"(?m)^threads: \d+", f"threads: {count}", runtime.read_text()))


def rival(what: str, root: Path, processes: int = 1) -> Any:
    """What benchmarks/rivals.py prints."""
    module = ["-m", "benchmarks.rivals", what, str(root), str(STEPS)]
    if processes > 1:
        module = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), *module]
    environment = os.environ | ENVIRONMENT | {"ACCELERATE_USE_CPU": "1"}
    return printed(module, environment)


def printed(module: list[str], environment: dict[str, str]) -> Any:
    """The JSON in the last line that a module prints."""
    command = [sys.executable, *module]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def flops_of_a_trajectory(root: Path) -> float:
    """Model FLOPs of training on one dialogue of the usual length, sampling and reference included."""
    config = load_config(root / "params.yaml", SETTINGS)
    conversation = load_conversation(root / "models/base", config.conversation, 2)
    spoken = json.loads((root / "metrics/train_stage2.jsonl").read_text().splitlines()[1])
    said = spoken["length_t1"] + spoken["length_t2"]
    problem = "12345+12345"
    tokens = len(conversation.tokenizer.encode(f"{problem}=")) + len(conversation.instruction) + said
    model = config.model
    layer = 4 * model.hidden_size**2 + 3 * model.hidden_size * model.feed_forward
    attention = 2 * tokens * model.hidden_size  # a token's in a layer: scores and sums, half of them causal
    return 10 * tokens * model.layers * (layer + attention / 2)


if __name__ == "__main__":
    parser = parser_of("benchmarks.step", __doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times each contestant (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Checkout(Path(folder)).root
        for command in (
            "download_data data/prepared",
            "prepare_base_model models/base --set model.steps=100",
        ):
            subprocess.run([sys.executable, "-m", *f"tasks.{command}".split()], cwd=root, check=True)
        training = load_config(root / "params.yaml", SETTINGS).stage("stage2")
        rows = training.prompts_per_step * training.samples_per_prompt
        limits = rival("ceilings", root)
        rates: dict[str, list[float]] = defaultdict(list)
        shares: dict[str, float] = {}
        for number, contestant, processes in product(
            range(given.rounds), (OURS, WHOLE, TWO_TURNS, ONE_TURN), PROCESSES
        ):
            name = contestant + PROCESSES[processes]
            seconds, of_parts = seconds_of(contestant, processes, root)
            rates[name].append(rows / seconds)
            shares = of_parts if name == OURS else shares
            print(f"round {number + 1}: {name}: {rates[name][-1]:.0f} trajectories a second", flush=True)
        flops = flops_of_a_trajectory(root)
        set_threads(root, CORES)  # as `ours`; the last contestant had another number
        profiled = printed(["-m", "benchmarks.step_profile", str(root)], os.environ | ENVIRONMENT)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    figures = {
        **medians,
        "model_flops_share": medians[OURS] * flops / limits["product_flops"],
        **limits,
        **{f"{part}_share": share for part, share in shares.items()},
    }
    table = pd.DataFrame(medians.items(), columns=["contestant", "trajectories_a_second"])
    as_many = (
        table["contestant"]
        .str.endswith(PROCESSES[2])
        .map({False: medians[OURS], True: medians[OURS + PROCESSES[2]]})
    )
    table["ours_to_it"] = (as_many / table["trajectories_a_second"]).round(2)
    table = table.round({"trajectories_a_second": 0})
    table.to_csv("benchmarks/step.csv", index=False)
    print(markdown(list(table), table.to_numpy()))
    parts = pd.DataFrame(profiled).T.fillna(0.0)
    parts["all"] = parts.sum(axis=1)
    parts = (100 * parts / parts["all"].sum()).round(1).rename_axis("percent_of_a_step").reset_index()
    parts.to_csv("benchmarks/step_profile.csv", index=False)
    print(markdown(list(parts), parts.to_numpy()))
    print(json.dumps(figures, indent=2))
    if given.json:
        write_json(given.json, figures)
