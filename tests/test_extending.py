"""The examples of docs/extending.md, run as they stand there, in a copy of the code that has them added."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from score_core.embedded.addition_model import FIX
from score_core.models.folders import load_model
from score_core.problems import read_problems
from tests.small_run import evaluate, small_config

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
CODE = ("score_core", "tasks", "conf", "prompts", "params.yaml", "runtime.yaml", "dvc.yaml", "pyproject.toml")
EXAMPLES = {
    "score_core/answers/after_equals.py",
    "score_core/rewards/rarity.py",
    "score_core/algorithms/rft.py",
    "score_core/rollout/engines/plain.py",
}


def fences(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


FILES = {text.split("\n", 1)[0].removeprefix("# "): text for text in fences("python") if text[0] == "#"}
LINES = re.findall(r"^The line, in `(\w+)` of `(\S+)`:\n\n```python\n(.+\n)```$", PAGE, re.MULTILINE)
SECTIONS = [yaml.safe_load(text) for text in fences("yaml")]
COMMANDS = [shlex.split(line) for text in fences("sh") for line in text.replace("\\\n", "").splitlines()]


def section(key: str) -> Any:
    """What the page has under a key, e.g. `reward.terms`."""
    for found in SECTIONS:
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None:
            return found
    raise AssertionError(f"the page has no {key}")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, small_run: Path) -> Path:
    """A copy of the checkout with the examples in it, and two-digit sums as its data and base model."""
    root = tmp_path_factory.mktemp("extended")
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, root / name)
    for name, text in FILES.items():
        (root / name).write_text(text)
    for (table, file, line), name in zip(LINES, FILES, strict=True):
        add_line(root / file, table, line, name.removesuffix(".py").replace("/", "."))
    for name, target in (("data/prepared", "data"), ("models/base", "base")):
        (root / name).parent.mkdir()
        (root / name).symlink_to(small_run / target)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["conversation"] |= {"max_new_tokens": 5, "max_prompt_tokens": 16}
    params["training"] |= {"prompts_per_step": 8, "validation_problems": 8, "warmup_steps": 0}
    params["rft"] = section("rft")
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    # The base model hardly ever corrects when it is asked to check; asked to fix, it does.
    (root / "prompts/addition/retry.txt").write_text(FIX)
    runtime = yaml.safe_load((root / "runtime.yaml").read_text())
    runtime |= {"threads": 1, "launch": {**runtime["launch"], "strategy": "single"}}
    (root / "runtime.yaml").write_text(yaml.safe_dump(runtime))
    (root / "plain.yaml").write_text(yaml.safe_dump({**runtime, "engine": section("engine")}))
    return root


def add_line(file: Path, table: str, line: str, module: str) -> None:
    """Puts a line into a dict literal, and the import of what it names above."""
    text = file.read_text()
    start = re.search(rf"^{table}\b.*= \{{\n?", text, re.MULTILINE)
    assert start is not None, f"{file} has no dict {table}"
    name = line.strip(" ,\n").split(": ")[1]
    first = re.search(r"^(import|from) (?!__future__)", text, re.MULTILINE)
    assert first is not None
    file.write_text(
        text[: first.start()]
        + f"from {module} import {name}\n"
        + text[first.start() : start.end()]
        + line
        + text[start.end() :]
    )


def run(tree: Path, *arguments: str) -> str:
    """Runs Python in the copy; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def says(tree: Path, script: str) -> dict[str, Any]:
    """What a script in the copy puts into `found`."""
    prefix = """
import json
from pathlib import Path
from score_core.algorithms import SETTINGS, make_algorithm
from score_core.config.parsing import load_config, load_runtime
from score_core.errors import UserError

def config(*changes):
    return load_config(Path("params.yaml"), SETTINGS, changes)

found = {}
"""
    return json.loads(run(tree, "-c", f"{prefix}{script}print(json.dumps(found))"))


def test_the_page_has_a_file_and_a_line_for_each_example() -> None:
    assert set(FILES) == EXAMPLES
    assert [Path(file).parts[:2] for _, file, _ in LINES] == [Path(name).parts[:2] for name in FILES]


def test_the_examples_look_like_our_code(tree: Path) -> None:
    for check in (["format", "--check", "--no-cache"], ["check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *FILES], cwd=tree, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_extractor(tree: Path) -> None:
    found = says(
        tree,
        f"""
from score_core.answers.verifier import Verifier

texts = ["1 + 2 = 3", "1 + 2 = 4 = 3", "3", "1 + 2 =", "= 2"]
settings = config("reward.extractor={section("reward.extractor")}").reward
found["verdicts"] = Verifier(settings).verify_all(texts, [("3",)] * len(texts))
try:
    Verifier(config("reward.extractor=after_equal").reward)
except UserError as error:
    found["refused"] = str(error)
""",
    )
    refused = found["refused"]
    assert found["verdicts"] == [["3", True], ["3", True], [None, False], [None, False], ["2", False]]
    assert "reward.extractor" in refused and "did you mean after_equals?" in refused


def test_the_reward_term(tree: Path) -> None:
    found = says(
        tree,
        f"""
from score_core.problems import Problem
from score_core.rewards.grader import Grader
from score_core.rewards.group import Ungraded

grader = Grader(config({f"reward.terms={json.dumps(section('reward.terms'))}"!r}).reward)
group = Ungraded(Problem("1", "3+4", ("7",)), 1, ["7", "7", "?", "9"], [[2]] * 4, [False] * 4)
found["grades"] = grader.grade([group])[0]
""",
    )
    grades = found["grades"]
    assert [correct for _, correct, _ in grades] == [True, True, False, False]
    # Weight 1 for a right answer; weight 0.1 for the share of the four that answered something else.
    expected = [1 + 0.1 * 2 / 4, 1 + 0.1 * 2 / 4, 0, 0.1 * 3 / 4]
    assert [reward for _, _, reward in grades] == pytest.approx(expected)


def test_the_algorithm_weighs_right_attempts_alone(tree: Path) -> None:
    found = says(
        tree,
        """
import torch
from score_core.rl.algorithm import Judged

correct_NT = torch.tensor([[0, 1], [1, 1], [0, 0], [0, 1], [1, 0]]).bool()
one_NT = torch.ones(5, 2)
sampled_NT = torch.tensor([[True, True]] * 4 + [[False, True]])
judged = Judged(
    torch.zeros(5), correct_NT.float(), correct_NT, correct_NT[:, :1], one_NT, sampled_NT, -one_NT, None, 5
)
for only_last in (False, True):
    rft = make_algorithm(config(f"rft.only_last={only_last}").stage("rft"))
    credit = rft.credit(judged)
    found[only_last] = [rft.kl_weight, credit.weight_MS.T.tolist(), credit.advantage_MS.tolist()]
""",
    )
    for only_last, rows in (
        ("false", ([0, 1, 0, 0, 0], [1, 1, 0, 1, 0])),
        ("true", ([0] * 5, [1, 1, 0, 1, 0])),
    ):
        kl_weight, weight_TN, advantage_NT = found[only_last]
        assert kl_weight == [0, 0] and advantage_NT == [[1, 1]] * 5
        expected = [[chosen / sum(map(sum, rows)) for chosen in row] for row in rows]
        torch.testing.assert_close(torch.tensor(weight_TN), torch.tensor(expected))


def test_the_algorithm_trains_by_the_pages_command_and_the_engine_evaluates(tree: Path) -> None:
    train, evaluation = COMMANDS
    run(tree, *train[1:], "--set", "rft.steps=2")
    curve = pd.read_csv(tree / "metrics/train_rft_curve.csv")
    assert list(curve["step"]) == [1, 2]
    assert (curve["loss"] > 0).all()
    assert set(curve) >= {"accuracy_t1", "accuracy_t2"} and "kl_t2" not in curve
    before, after = (load_model(tree / "models" / name, "float32", "cpu") for name in ("base", "rft"))
    assert any((a != b).any() for a, b in zip(before.parameters(), after.parameters(), strict=True))

    run(tree, *evaluation[1:], "--runtime", "plain.yaml", "--set", "evaluation.sampling=any")
    found = pd.read_parquet(tree / "generations/rft.parquet")
    settings = small_config(conversation={"retry": "prompts/addition/fix.txt"})  # FIX
    expected = evaluate(tree / "models/rft", read_problems(tree / "data/prepared", "test"), settings)
    pd.testing.assert_frame_equal(found, expected)
    manifest = json.loads((tree / ".runs/evaluate_rft/manifest.json").read_text())
    assert manifest["runtime"]["engine"] == "plain"
    assert expected["correct_t2"].any()


def test_the_engine_agrees_with_the_built_in_one(tree: Path) -> None:
    found = says(
        tree,
        """
import numpy as np
import torch
from score_core.evaluation.evaluate import Evaluator
from score_core.problems import read_problems
from score_core.rl.logprobs import add_token_scoring, attempt_logp
from score_core.rollout.engines import make_engine
from score_core.rollout.engines.engine import Request
from score_core.rollout.trajectories import assemble

runtime = load_runtime(Path("plain.yaml"))
evaluator = Evaluator(Path("models/base"), config("evaluation.sampling=any"), runtime)
plain, builtin = evaluator.engine, make_engine("builtin", runtime, "float32")
conversation = evaluator.conversation
builtin.load(plain.model)
add_token_scoring(plain.model)
plain.model.train()
prompts = [conversation.prompt(problem) for problem in read_problems(Path("data/prepared"), "test")]

def answers(engine, prompts, attempts, temperature=1.0, **options):
    sampled = engine.sample(conversation, Request(prompts, attempts, temperature=temperature, **options))
    rows = assemble(sampled.segments, sampled.truncated, conversation.end_ids[0], logp=sampled.logp)
    assert plain.model.training
    plain.model.eval()
    scored_NT = attempt_logp(plain.model, rows, temperature, 64)
    plain.model.train()
    return [sampled.segments, sampled.truncated, rows.logp_NT.tolist(), scored_NT.tolist()]

found["name"] = type(plain).__name__
found["greedy"] = [answers(engine, prompts[:24], 3) for engine in (plain, builtin)]
torch.manual_seed(0)
options = {"samples": 2, "noise": np.zeros((16, 2, conversation.settings.max_new_tokens))}
found["likely"] = [answers(engine, prompts[:8], 2, top_p=1e-9, **options) for engine in (plain, builtin)]
found["sampled"] = answers(plain, prompts[:8], 2, 1.5, **options)
firsts = [pieces[1][0] for pieces in found["sampled"][0]]
found["continued"] = answers(plain, prompts[:8], 2, 1.5, given=firsts, **options)
conversation.settings = conversation.settings.model_copy(update={"max_new_tokens": 3})
found["truncated"] = [answers(engine, prompts[:2], 2) for engine in (plain, builtin)]
""",
    )
    assert found["name"] == "PlainEngine"
    greedy, expected = found["greedy"]
    assert greedy[:2] == expected[:2]
    assert len(greedy[0]) == 24 and len(greedy[0][0]) == 6
    torch.testing.assert_close(torch.tensor(greedy[2]), torch.tensor(expected[2]), rtol=1e-4, atol=1e-4)
    likely, expected = found["likely"]
    assert likely[:2] == expected[:2]  # with next to no mass left, sampling is greedy
    truncated, expected = found["truncated"]
    assert truncated[:2] == expected[:2] and truncated[1] == [[True] * 2] * 2

    sampled, continued = found["sampled"], found["continued"]
    assert len({str(pieces) for pieces in sampled[0]}) > 8  # of 16: samples of a prompt differ
    assert [pieces[:2] for pieces in continued[0]] == [pieces[:2] for pieces in sampled[0]]
    assert [row[0] for row in continued[2]] == [0] * 16
    for (_, _, logp_NT, scored_NT), columns in ((sampled, [0, 1]), (continued, [1])):
        ours, theirs = torch.tensor(logp_NT)[:, columns], torch.tensor(scored_NT)[:, columns]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert (ours < 0).all()
