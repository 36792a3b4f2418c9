"""How a step's time and memory grow with its trajectories, with prompts, answers, K and the model.

    .venv/bin/python -m benchmarks.growth           # twenty minutes on 2 quiet cores

Whole steps of Stage II (sampling of both attempts, grading, reference, forward and backward) with a Qwen2 of
random weights, whose answers almost never end before their limit. Each case in a process of its own; the
median of its steps but the first. Writes benchmarks/growth.csv; `ratio` is to the series' first row.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from benchmarks.tables import markdown
from tasks.runner.exits import parser_of

STEPS = 4
VOCABULARY = 2048  # of which the tokenizer knows 20: an answer ends with one token in 2,048


@dataclass(frozen=True)
class Case:
    """A step's sizes.

    Attributes:
        prompt: tokens of a problem's prompt.
        answer: most tokens of an attempt.
        share: whether the K trajectories of a prompt share its computation.
    """

    prompts: int = 8
    samples: int = 8
    prompt: int = 100
    answer: int = 50
    hidden: int = 256
    layers: int = 4
    share: bool = True


BASE = Case()
SMALL = Case(answer=20, hidden=128, layers=2)
SERIES = {
    "trajectories a step": [replace(SMALL, prompts=count) for count in (8, 32, 128)],
    "tokens of a prompt": [BASE, replace(BASE, prompt=200)],
    "tokens of a prompt, not shared": [
        replace(case, share=False) for case in (BASE, replace(BASE, prompt=200))
    ],
    "trajectories a prompt": [replace(BASE, prompts=64 // k, samples=k) for k in (2, 8, 32)],
    "tokens of an attempt": [replace(BASE, answer=answer) for answer in (25, 50, 100)],
    "the model's width": [replace(BASE, hidden=hidden) for hidden in (128, 256, 512)],
}


def run(case: Case) -> None:
    """Prints seconds a step and the most bytes held."""
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from score_core.embedded.addition_model import make_tokenizer
    from score_core.models.folders import save_model
    from score_core.problems import Problem, write_problems
    from tests.configs import runtime
    from tests.small_run import folders, small_config, train_stage

    disable_progress_bar()
    set_verbosity_error()
    tokenizer = make_tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=case.hidden,
            intermediate_size=4 * case.hidden,
            num_hidden_layers=case.layers,
            num_attention_heads=case.hidden // 32,
            num_key_value_heads=case.hidden // 32,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save_model(model, tokenizer, root / "base")
        (root / "data").mkdir()
        around = len(tokenizer.encode("=")) + 2
        texts = [f"{at:0{case.prompt - around}d}" for at in range(case.prompts * STEPS)]
        for split in ("train", "validation", "test"):
            problems = [Problem(f"{split}-{text}", text, ("1",)) for text in texts]
            write_problems(root / "data", split, problems)
        config = small_config(
            conversation={"max_new_tokens": case.answer, "max_prompt_tokens": case.prompt + 8},
            training={
                "steps": STEPS,
                "prompts_per_step": case.prompts,
                "samples_per_prompt": case.samples,
                "validate_every": STEPS,
                "validation_problems": 1,
                "share_prompts": case.share,
            },
        )
        target = folders(root, root, "stage2")
        train_stage("stage2", config, runtime(threads=2), target)
        laps = [json.loads(line) for line in (target.work / "timing.jsonl").read_text().splitlines()]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([statistics.median(lap["seconds"] for lap in laps[1:]), most]))


def main() -> None:
    """Runs all cases and writes the table."""
    parser = parser_of("benchmarks.growth", __doc__)
    parser.add_argument("--case", help="the sizes of one, as JSON; prints its seconds and bytes")
    given = parser.parse_args()
    if given.case:
        run(Case(**json.loads(given.case)))
        return
    found: dict[Case, tuple[float, float]] = {}
    rows = []
    for series, cases in SERIES.items():
        for case in cases:
            if case not in found:
                command = [sys.executable, "-m", "benchmarks.growth", "--case", json.dumps(asdict(case))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                found[case] = tuple(json.loads(done.stdout.splitlines()[-1]))
            seconds, most = found[case]
            each = seconds / (case.prompts * case.samples)
            first = found[cases[0]][0] / (cases[0].prompts * cases[0].samples)
            rows.append(
                {
                    "series": series,
                    **asdict(case),
                    "milliseconds_a_trajectory": round(1000 * each, 2),
                    "ratio": round(each / first, 2),
                    "gigabytes": round(most / 1e9, 2),
                }
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv("benchmarks/growth.csv", index=False)
    print(markdown(list(table), table.to_numpy()))


if __name__ == "__main__":
    main()
