"""Every stage's command line: mistakes are one line and exit code 2, before anything runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tasks.commands.profiles import compose
from tasks.runner.pipeline import read_pipeline
from tests.configs import LOCAL_DATA, LOCAL_MODEL

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
STAGES = ["download_data", "prepare_base_model", "evaluate_base", "train_stage1", "train_stage2", "report"]
LINES = {stage: content["cmd"].split()[1:] for stage, content in read_pipeline().items()}


@pytest.fixture
def workplace(tmp_path):
    """A folder with the files that stages read, and a function that runs a stage in it."""
    (tmp_path / "params.yaml").write_text(compose(["profile=gsm8k", "smoke=yes"], ROOT / "conf"))
    (tmp_path / "runtime.yaml").write_text((ROOT / "runtime.yaml").read_text())
    for name in ("prompts", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "prompts" / "tagged").symlink_to(ROOT / "prompts" / "tagged")
    (tmp_path / "data" / "fixtures").symlink_to(ROOT / "data" / "fixtures")
    return tmp_path


def run(stage: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *LINES[stage], *arguments]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def refusal(stage: str, folder: Path, *arguments: str) -> str:
    """The one line with which a stage ends with 2."""
    done = run(stage, folder, *arguments)
    assert done.returncode == 2, done.stderr
    *progress, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all("examples/s" in bar for bar in progress if bar)
    return line


def change(folder: Path, **sections: object) -> None:
    """Changes params.yaml; dictionaries are merged into the section."""
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    for name, value in sections.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


MISTAKES = {
    "unknown": ({"stage2": {"alhpa": 3}}, "params.yaml: stage2.alhpa: unknown key; did you mean alpha?"),
    "paid failure": ({"stage2": {"alpha": 10, "gamma": 0.5}}, "lower alpha or gamma"),
    "top-p": ({"stage1": {"top_p": 0.9}}, "stage1.top_p: refused: training samples from the whole"),
    "one sample": ({"stage1": {"samples_per_prompt": 1}}, "sample at least 2, or use moving_average or none"),
    "a word": ({"seed": "eleven"}, "seed: "),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_validates_the_whole_file(workplace, stage):
    sections, said = MISTAKES["unknown"]
    change(workplace, **sections)
    assert said in refusal(stage, workplace)
    assert {path.name for path in workplace.iterdir()} == {"data", "params.yaml", "prompts", "runtime.yaml"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_wrong_parameters_are_named_with_the_remedy(workplace, mistake):
    sections, said = MISTAKES[mistake]
    change(workplace, **sections)
    assert said in refusal("download_data", workplace)


def test_wrong_runtime_and_missing_files(workplace):
    (workplace / "runtime.yaml").write_text("thread: 2\n")
    assert "runtime.yaml: thread: unknown key; did you mean threads?" in refusal("report", workplace)
    (workplace / "params.yaml").unlink()
    assert "params.yaml: not found" in refusal("report", workplace)


def test_an_output_that_cannot_be_written_is_found_before_the_work(workplace):
    (workplace / "models").write_text("a file in the way")
    assert "models/stage1: cannot write here" in refusal("train_stage1", workplace)


def own_data(folder: Path, train: str, test: str) -> None:
    """Has the pipeline read two files of rows."""
    data = folder / "mine"
    data.mkdir()
    (data / "train.jsonl").write_text(train)
    (data / "test.jsonl").write_text(test)
    content = yaml.safe_load((folder / "params.yaml").read_text())
    columns = {"id": None, "problem": "problem", "answer": "answer"}
    content["data"] = {**LOCAL_DATA, "path": "mine", "columns": columns, "validation_share": 0.5}
    content["watched"]["data"] = "mine"
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


def rows(*problems: str) -> str:
    return "".join(json.dumps({"problem": problem, "answer": "1"}) + "\n" for problem in problems)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (rows("a").replace("answer", "solution"), rows("b"), "answer"),
        (rows(*"abcdefgh"), "", "test.jsonl: the split is empty"),
        (rows(*"abcdefgh"), rows("x", "a"), "test.jsonl"),
    ],
    ids=["missing column", "empty split", "problem in two splits"],
)
def test_wrong_data_is_named_by_file(workplace, train, test, said):
    own_data(workplace, train, test)
    line = refusal("download_data", workplace)
    assert "mine/" in line and said in line
    assert not (workplace / "data" / "prepared").exists()


def test_a_model_folder_without_a_tokenizer(workplace):
    folder = workplace / "weights"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    content = yaml.safe_load((workplace / "params.yaml").read_text())
    content["model"] = {**LOCAL_MODEL, "path": "weights"}
    content["watched"]["model"] = "weights"
    (workplace / "params.yaml").write_text(yaml.safe_dump(content))
    assert "weights" in refusal("prepare_base_model", workplace)
    assert not (workplace / "models" / "base").exists()


def test_a_stage_without_its_inputs_names_what_makes_them(workplace):
    assert "dvc repro download_data" in refusal("evaluate_base", workplace)


@pytest.mark.parametrize("stage", ["train_stage2", "evaluate_base", "download_data", "report"])
def test_help_explains_the_command_and_each_argument(stage):
    done = run(stage, ROOT, "--help")
    assert done.returncode == 0
    arguments = [word for word in LINES[stage] if word.startswith("--")]
    assert all(f"\n  {name} " in done.stdout for name in [*arguments, "--params", "--runtime", "--set"])
    assert f"python -m tasks.{LINES[stage][1].removeprefix('tasks.')}" in done.stdout


def test_a_stage_of_training_that_is_not_there_is_named_with_those_that_are(workplace):
    line = refusal("train_stage1", workplace, "--name", "stage3")
    assert "stage3" in line and "stage1, stage2" in line


@pytest.mark.parametrize("name", ["a/b", "..", ""])
def test_a_name_is_part_of_a_path(workplace, name):
    done = run("evaluate_base", workplace, "--name", name)
    assert done.returncode == 2 and "argument --name: expected letters, digits" in done.stderr
    assert not (workplace / ".runs").exists()


def test_values_are_set_on_the_command_line_and_checked_like_others(workplace):
    assert "did you mean alpha?" in refusal("report", workplace, "--set", "stage2.alhpa=3")
    assert "expected KEY=VALUE" in refusal("report", workplace, "--set", "seed")
    done = run("download_data", workplace, "--set", "seed=12", "--set", "data.sizes.test=3")
    assert done.returncode == 0, done.stderr
    made = json.loads((workplace / "data" / "prepared" / "manifest.json").read_text())
    assert made["seed"] == 12 and made["counts"]["test"] == 3
    manifest = json.loads((workplace / ".runs" / "download_data" / "manifest.json").read_text())
    assert manifest["set"] == ["seed=12", "data.sizes.test=3"]


def test_what_varies_is_kept_beside_the_outputs(workplace):
    done = run("download_data", workplace)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((workplace / ".runs" / "download_data" / "manifest.json").read_text())
    assert manifest["seconds"] > 0
    assert 1e7 < manifest["peak_memory_bytes"] < 1e11
    assert manifest["runtime"] == yaml.safe_load((workplace / "runtime.yaml").read_text())
    assert "python" in manifest["versions"] and "torch" not in manifest["versions"]


SLOW_STAGE = """
import sys, time
from pathlib import Path
from score_core.files import replacing
from tasks.runner.command_line import run_stage

def run(given, config, runtime):
    with replacing(Path("out")) as folder:
        folder.mkdir()
        Path("started").touch()
        time.sleep(60)

run_stage("slow", lambda parser: None, lambda given: [Path("out")], run)
"""


def started(folder: Path, command: list[str]) -> subprocess.Popen:
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for((folder / "started").exists)
    return process


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_stage_leaves_nothing_behind(workplace, number, code):
    process = started(workplace, [sys.executable, "-c", SLOW_STAGE])
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in said
    assert not (workplace / "out").exists() and not list(workplace.glob(".out*"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_stage_does_not_outlive_the_one_that_started_it(workplace):
    outer = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    process = started(workplace, [sys.executable, "-c", outer, SLOW_STAGE])
    process.kill()
    process.communicate(timeout=20)
    # Its temporary folder is removed in its end, which no signal of ours brought about.
    wait_for(lambda: not list(workplace.glob(".out*")))


CAPABILITY_STAGE = """
from tasks.runner.command_line import run_stage

def run(given, config, runtime):
    import torch
    print(torch.backends.cpu.get_cpu_capability())

run_stage("capability", lambda parser: None, lambda given: [], run)
"""


def test_the_embedded_model_computes_with_kernels_that_other_processors_have(workplace):
    import torch

    best = torch.backends.cpu.get_cpu_capability()
    if not torch.cpu._is_avx2_supported():
        pytest.skip("this processor has no AVX2, so nothing is pinned")

    def chosen(profile: str, **environment: str) -> str:
        (workplace / "params.yaml").write_text(compose([f"profile={profile}"], ROOT / "conf"))
        command, variables = [sys.executable, "-c", CAPABILITY_STAGE], ENVIRONMENT | environment
        done = subprocess.run(
            command, cwd=workplace, env=variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert chosen("default") == "AVX2"
    assert chosen("gsm8k") == best
    assert chosen("default", ATEN_CPU_CAPABILITY="default") == "DEFAULT", "what the user sets stands"
