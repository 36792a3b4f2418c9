"""How fast we train two turns, beside what a user would pick instead, and what the machine could do.

    .venv/bin/python -m benchmarks.step [--json FILE]            # a quarter of an hour

On the embedded default's model, problems and batch (64 prompts x 8), in one clone of the checkout, these
take turns:

* ours: Stage II, two turns, with the KL to the base model and the shaped reward;
* ours_sharing_prompts: the same with `training.share_prompts`, as all profiles have it but the default, whose
  bits it would change;
* TRL's GRPOTrainer doing the same two turns, through its `rollout_func` (benchmarks/rivals.py);
* TRL's GRPOTrainer doing one turn of as many sampled tokens.

All in one environment: the default's pinned kernels and threads. The machine's ceilings, a square matrix
product and a copy in memory, are measured in the same run. Model FLOPs are those of the dialogues' tokens,
10 a weight and token (sampling 2, reference 2, forward and backward 6) and those of attention, without the
saving of shared prompts. Writes benchmarks/step.csv.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

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
OURS, TWO_TURNS, ONE_TURN = "ours", "trl_two_turn", "trl_one_turn"
SHARING = "ours_sharing_prompts"
TRAIN = (
    "tasks.train models/stage2 --name stage2 --start models/base --reference models/base "
    "--data data/prepared --metrics metrics/train_stage2 "
    f"--set training.steps={STEPS} --set training.validate_every={STEPS}"
)


def seconds_of(contestant: str, root: Path) -> tuple[float, dict[str, float]]:
    """The median step's seconds, and of ours the shares of its parts."""
    environment = os.environ | KERNELS | ENVIRONMENT
    if contestant in (OURS, SHARING):
        shutil.rmtree(root / ".runs", ignore_errors=True)  # or it goes on from the last round's checkpoint
        sharing = ["--set", f"training.share_prompts={str(contestant == SHARING).lower()}"]
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
    found = rival(contestant.removeprefix("trl_"), root, environment)
    return statistics.median(found[WARM_UP:]), {}


def rival(what: str, root: Path, environment: dict[str, str]) -> list[float]:
    """What benchmarks/rivals.py prints."""
    command = [sys.executable, "-m", "benchmarks.rivals", what, str(root), str(STEPS)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


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
    attention = (
        2 * tokens * model.hidden_size
    )  # a token's, in one layer: scores and sums, half of them causal
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
        rates: dict[str, list[float]] = {name: [] for name in (OURS, SHARING, TWO_TURNS, ONE_TURN)}
        limits = rival("ceilings", root, os.environ | KERNELS | ENVIRONMENT)
        shares: dict[str, float] = {}
        for number in range(given.rounds):
            for name, found in rates.items():
                seconds, parts = seconds_of(name, root)
                shares = parts if name == OURS else shares
                found.append(rows / seconds)
                print(f"round {number + 1}: {name}: {found[-1]:.0f} trajectories a second", flush=True)
        flops = flops_of_a_trajectory(root)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    figures = {
        **medians,
        "model_flops_share": medians[OURS] * flops / limits["product_flops"],
        **limits,
        **{f"{part}_share": share for part, share in shares.items()},
    }
    table = pd.DataFrame(
        [
            (name, round(value), *(round(medians[ours] / value, 2) for ours in (OURS, SHARING)))
            for name, value in medians.items()
        ],
        columns=["contestant", "trajectories_a_second", "ours_to_it", "sharing_to_it"],
    )
    table.to_csv("benchmarks/step.csv", index=False)
    print(markdown(list(table), table.to_numpy()))
    print(json.dumps(figures, indent=2))
    if given.json:
        write_json(given.json, figures)
