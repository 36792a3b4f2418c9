"""The pipeline under DVC, in a clone of the checkout at toy size: what runs, what is restored, what is kept.

The tests are steps of one story, in order; each leaves the clone with the default profile's results.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.dag import plan, read_stages
from score_core.embedded import tiny_model
from tasks.commands.profiles import PARAMS, compose
from tasks.runner.pipeline import read_pipeline
from tests.configs import LOCAL_MODEL

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
STAGES = list(read_pipeline())
SMOKE = ("-S", "smoke=yes")

# Loaded by every Python below a folder on PYTHONPATH: notes which sections of the parameters a stage
# reads once they are loaded.
SPY = """
import os, sys

def note_sections():
    from score_core.config import parsing as config

    load = config.load_config

    def load_and_watch(*arguments):
        loaded = load(*arguments)
        get = config.Config.__getattribute__
        stage = os.path.basename(sys.argv[0]).removesuffix(".py")
        if "--name" in sys.argv:
            stage += "_" + sys.argv[sys.argv.index("--name") + 1]

        def watched(self, name):
            if name in config.Config.model_fields:
                with open(os.environ["SECTIONS_READ"], "a") as file:
                    file.write(f"{stage} {name}\\n")
            return get(self, name)

        config.Config.__getattribute__ = watched
        return loaded

    config.load_config = load_and_watch

if os.environ.get("SECTIONS_READ") and sys.orig_argv[1:2] == ["-m"] and "tasks." in sys.orig_argv[2]:
    sys.path.insert(0, os.getcwd())
    note_sections()
"""


class Checkout:
    """A clone with the files as they are here, committed or not, on a machine that knows no git user."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.sections = folder / "sections"
        (folder / "spy").mkdir()
        (folder / "spy" / "sitecustomize.py").write_text(SPY)
        (folder / "home").mkdir()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(folder / "spy"),
            "SECTIONS_READ": str(self.sections),
        }
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.root)], check=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            source, target = ROOT / name, self.root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
            else:
                target.unlink(missing_ok=True)
        self.git("add", "-A")
        self.git("commit", "-qm", "As it is here", "--allow-empty")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip()

    def run(self, *command: str, fails: bool = False, **environment: str) -> str:
        """Both streams of a command, which has to end well, or not, as said."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def repro(self, *arguments: str) -> list[str]:
        """Stages that `dvc repro` ran, in order; a restored stage does not run."""
        return self.ran(self.run("dvc", "repro", *arguments))

    def experiment(self, *arguments: str) -> list[str]:
        """Stages that `dvc exp run` ran; the clone's files are committed or not, its user is nobody."""
        identity = {
            f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        return self.ran(self.run("dvc", "exp", "run", *arguments, **identity))

    def ran(self, output: str) -> list[str]:
        """What DVC says that it ran, which the manifests have to bear out."""
        said = re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)
        before, self.manifests = self.manifests, self.read_manifests()
        assert {name for name, text in self.manifests.items() if before.get(name) != text} == set(said)
        return said

    manifests: dict[str, str] = {}  # noqa: RUF012

    def read_manifests(self) -> dict[str, str]:
        return {path.parent.name: path.read_text() for path in self.root.glob(".runs/*/manifest.json")}

    def hashes(self) -> dict[str, str]:
        """Every file that the pipeline makes, by its content."""
        made = [
            path
            for name in ("data/prepared", "models", "metrics", "generations", "reports")
            for path in sorted((self.root / name).rglob("*"))
            if path.is_file() and path.name != ".gitignore"
        ]
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in made
        }

    def set(self, section: str, **values: object) -> None:
        """Edits params.yaml by hand."""
        content = yaml.safe_load((self.root / PARAMS).read_text())
        content[section] |= values
        (self.root / PARAMS).write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The clone after its first run, which has to run everything."""
    clone = Checkout(tmp_path_factory.mktemp("pipeline"))
    (clone.root / PARAMS).write_text(compose(["smoke=yes"], clone.root / "conf"))
    assert sorted(clone.repro()) == sorted(STAGES)
    clone.made = clone.hashes()
    return clone


def test_a_run_makes_every_output_and_leaves_nothing_else(checkout):
    metrics = json.loads((checkout.root / "metrics" / "final.json").read_text())
    assert metrics["n"] == 16
    assert {"accuracy_t1", "accuracy_t2", "delta", "delta_i_to_c", "delta_c_to_i", "ci95"} <= set(metrics)
    changed = checkout.git("status", "--porcelain").splitlines()
    assert all(re.match(r".. (metrics/|dvc\.lock|params\.yaml)", line) for line in changed), changed
    assert not list(checkout.root.rglob("*.tmp"))


def test_nothing_runs_a_second_time(checkout):
    output = checkout.run("dvc", "repro")
    assert "Data and pipelines are up to date." in output
    assert checkout.ran(output) == []


def test_another_bonus_runs_stage_two_on_and_the_old_one_is_restored(checkout):
    params = (checkout.root / PARAMS).read_text()
    # Two toy steps may see no reward at all, and then no bonus: the decay changes the weights for sure.
    checkout.set("stage2", alpha=5.0, weight_decay=0.5)
    assert checkout.repro() == ["check", "train_stage2", "evaluate_final", "report"]
    assert checkout.hashes() != checkout.made
    (checkout.root / PARAMS).write_text(params)
    assert checkout.repro() == ["check"]
    assert checkout.hashes() == checkout.made


def test_a_mistake_is_refused_before_anything_is_removed(checkout):
    params = (checkout.root / PARAMS).read_text()
    checkout.set("stage2", alpah=5.0)
    assert "stage2.alpah" in checkout.run("dvc", "repro", fails=True)
    assert checkout.hashes() == checkout.made

    content = yaml.safe_load(params)
    content["model"] = {"source": "local", "path": "models/base", "dtype": "float32", "quantize": None}
    content["data"] = yaml.safe_load((checkout.root / "conf/profile/gsm8k.yaml").read_text())["data"]
    (checkout.root / "mine").symlink_to("models/base")
    for path, refused in (
        ("models/base", "both a dependency and an output"),  # by DVC itself
        ("mine", "error: model.path: mine is what prepare_base_model makes"),
    ):
        content["model"]["path"] = content["watched"]["model"] = path
        (checkout.root / PARAMS).write_text(yaml.safe_dump(content, sort_keys=False))
        assert refused in checkout.run("dvc", "repro", fails=True)
        assert checkout.hashes() == checkout.made
    (checkout.root / "mine").unlink()
    (checkout.root / PARAMS).write_text(params)
    assert checkout.repro() == []


def test_a_deleted_model_is_restored(checkout):
    shutil.rmtree(checkout.root / "models" / "stage1")
    assert checkout.repro() == []
    assert checkout.hashes() == checkout.made


def test_runtime_settings_invalidate_nothing(checkout):
    runtime = checkout.root / "runtime.yaml"
    runtime.write_text(runtime.read_text().replace("log_level: info", "log_level: warning"))
    assert checkout.repro() == ["check"]


def test_code_makes_those_stages_stale_that_compute_with_it(checkout):
    def stale_after(file: str) -> list[str]:
        path = checkout.root / file
        before = path.read_text()
        path.write_text(before + "# a changed line\n")
        steps = plan(read_stages(checkout.root), root=checkout.root)
        path.write_text(before)
        return [step.stage for step in steps if step.verdict != "cached"]

    assert stale_after("tasks/runner/exits.py") == []
    assert stale_after("score_core/config/parsing.py") == ["check"]
    trained = ["train_stage1", "train_stage2"]
    follow = ["evaluate_stage1", "evaluate_final", "report"]
    assert sorted(stale_after("score_core/rl/objective.py")) == sorted([*trained, *follow])
    assert stale_after("score_core/report/page.py") == ["report"]
    assert set(stale_after("score_core/rollout/trajectories.py")) == {"evaluate_base", *trained, *follow}
    (checkout.root / "score_core" / "rl" / "new.py").touch()
    assert "train_stage1" in checkout.run("dvc", "status")
    (checkout.root / "score_core" / "rl" / "new.py").unlink()
    assert "up to date" in checkout.run("dvc", "status")


def test_one_stage_alone_and_the_commands_that_users_know(checkout):
    assert checkout.repro("train_stage2") == []
    assert "accuracy_t2" in checkout.run("dvc", "metrics", "show")
    assert "dvc_plots" in checkout.run("dvc", "plots", "show")
    page = (checkout.root / "dvc_plots" / "index.html").read_text()
    assert "Accuracy on validation problems, Stage II" in page and "accuracy_t2" in page
    assert "train_stage2" in checkout.run("dvc", "dag")
    assert "after Stage II" in checkout.run("python", "-m", "tasks.commands.summary")


def test_edits_made_by_hand_are_not_overwritten(checkout):
    checkout.set("stage2", alpha=4.0)
    edited = (checkout.root / PARAMS).read_text()
    for arguments in (["-S", "profile=gsm8k"], ["-S", "stage1.steps=1"], []):
        said = checkout.run(
            "dvc",
            "exp",
            "run",
            *arguments,
            fails=True,
            GIT_COMMITTER_NAME="n",
            GIT_COMMITTER_EMAIL="n@n",
            GIT_AUTHOR_NAME="n",
            GIT_AUTHOR_EMAIL="n@n",
        )
        assert "stage2.alpha: 3.0 is now 4.0" in said and "Traceback" not in said
        assert (checkout.root / PARAMS).read_text() == edited
    assert checkout.hashes() == checkout.made
    (checkout.root / PARAMS).write_text(compose(["smoke=yes"], checkout.root / "conf"))


def test_a_mistyped_value_can_be_put_right(checkout):
    who = {f"GIT_{who}_{what}": "n" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    said = checkout.run("dvc", "exp", "run", *SMOKE, "-S", "seed=abc", fails=True, **who)
    assert "error: params.yaml: seed: " in said
    assert checkout.experiment(*SMOKE) == []
    assert checkout.hashes() == checkout.made


def test_to_another_profile_and_back_without_training(checkout):
    ran = checkout.experiment("-S", "profile=gsm8k", *SMOKE)
    assert set(ran) == set(STAGES)
    assert (checkout.root / "models" / "stage2" / "adapter_config.json").exists()
    assert checkout.experiment("-S", "profile=default", *SMOKE) == ["check"]
    assert checkout.hashes() == checkout.made


def test_a_local_model_that_changed_is_taken_again_and_none_of_the_pipeline_s_own(checkout):
    params, mine = (checkout.root / PARAMS).read_text(), str(checkout.root.parent / "mine")
    base = checkout.root / "models" / "base" / "model.safetensors"
    checkout.set("watched", model=mine)
    content = yaml.safe_load((checkout.root / PARAMS).read_text())
    for seed in (1, 2):
        tiny_model.build("qwen2", seed, Path(mine))
        (checkout.root / PARAMS).write_text(
            yaml.safe_dump({**content, "model": {**LOCAL_MODEL, "path": mine}})
        )
        assert checkout.repro("prepare_base_model") == ["prepare_base_model"]
        assert base.read_bytes() == (Path(mine) / "model.safetensors").read_bytes()
    # What DVC would remove before it could be read; it says so of a dependency that is an output.
    for own in ("models/base", "models/stage2"):
        content |= {"model": {**LOCAL_MODEL, "path": own}, "watched": {**content["watched"], "model": own}}
        (checkout.root / PARAMS).write_text(yaml.safe_dump(content))
        made = checkout.hashes()
        assert "Traceback" not in checkout.run("dvc", "repro", fails=True)
        assert checkout.hashes() == made
    (checkout.root / PARAMS).write_text(params)
    assert checkout.repro() == []
    assert checkout.hashes() == checkout.made


def test_each_stage_declares_the_parameters_that_it_reads(checkout):
    """Of both profiles' runs: a section that is missing in dvc.yaml would leave stale results."""
    lines = {tuple(line.split()) for line in checkout.sections.read_text().splitlines()}
    for stage, content in read_pipeline().items():
        read = {name for who, name in lines if who == stage}
        # A run's name in a tracker is no part of the result.
        read -= {"profile"}
        if "models/base" in content["deps"]:
            read -= {"smoke"}  # how its weights are held: another base model, which is an input
        if stage == "download_data":
            read -= {"model"}  # which kernels torch is to take, and here it takes none
            read = read - {"evaluation"} | {"evaluation.by"}  # of which it keeps those columns
        if "stages" in read:
            read = read - {"stages"} | {"training", stage.removeprefix("train_")}
        if stage in ("check", "report"):
            assert content["params"] == [{"params.yaml": None}]
        else:
            assert set(content["params"]) == read, stage


def test_a_smoke_run_leaves_the_checkout_alone(checkout):
    """`make smoke`, which runs a new profile and new files that git does not know yet."""
    conf = checkout.root / "conf" / "profile"
    (conf / "mine.yaml").write_text((conf / "gsm8k.yaml").read_text().replace("gsm8k\nseed", "mine\nseed"))
    shutil.copytree(checkout.root / "prompts" / "tagged", checkout.root / "prompts" / "mine")
    (conf / "mine.yaml").write_text(
        (conf / "mine.yaml").read_text().replace("prompts/tagged", "prompts/mine")
    )
    (checkout.root / ".venv").mkdir()
    before = checkout.git("status", "--porcelain")
    ready = checkout.run("make", "-n", "-p", "help")
    stamp = re.search(r"^READY := (\S+)", ready, re.MULTILINE)[1]
    (checkout.root / stamp).touch()
    output = checkout.run("make", "smoke", "profile=mine")
    assert re.search(r"Ran experiment\(s\): ", output)
    assert checkout.git("status", "--porcelain") == before
    assert checkout.hashes() == checkout.made
