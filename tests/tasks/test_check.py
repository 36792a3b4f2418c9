"""What the first stage refuses: stages without a section, and paths that the pipeline itself makes."""

import subprocess
import sys
from pathlib import Path

import pytest

from score_core.config.schema import Config
from score_core.errors import UserError
from tasks import check
from tasks.runner.pipeline import all_outputs
from tests import configs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def checked(**sections: object) -> None:
    run_of(configs.config(**sections))


def run_of(config: Config, **settings: object) -> None:
    check.run(None, config, configs.runtime(**settings))


def with_model(path: object) -> dict:
    return {"model": {**configs.LOCAL_MODEL, "path": str(path)}}


def with_data(path: object) -> dict:
    return {"data": {**configs.LOCAL_DATA, "path": str(path)}, "model": configs.TINY_MODEL}


def test_what_stands_outside_the_outputs_passes(tmp_path):
    checked()
    checked(**with_model(tmp_path), smoke=True)
    checked(**with_data("data/fixtures/gsm8k"))
    hub = {"source": "hub", "path": "no/where", "revision": "main"}
    checked(data={**configs.content()["data"]}, model={**configs.LOCAL_MODEL, **hub, "family": "qwen2"})


@pytest.mark.parametrize("made", [str(path) for path in all_outputs()])
def test_no_output_of_any_stage_is_an_input(made):
    for sections, key in ((with_model(made), "model.path"), (with_data(made), "data.path")):
        for path in (made, f"models/../{made}/", ROOT / made, f"{made}/inside"):
            sections[key.split(".")[0]]["path"] = str(path)
            with pytest.raises(UserError, match=rf"^{key}: .* is what \w+ makes, .*name the copy"):
                checked(**sections)


def test_a_link_to_an_output_is_seen_through(tmp_path):
    (tmp_path / "link").symlink_to(ROOT / "models" / "base")
    with pytest.raises(UserError, match="is what prepare_base_model makes"):
        checked(**with_model(tmp_path / "link"))


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^model.path: .*/nowhere not found"):
        checked(**with_model(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^conversation.few_shot: prompts/addition/few.jsonl not found"):
        checked(conversation={"few_shot": "prompts/addition/few.jsonl"})


def test_an_archive_on_this_machine_has_to_be_there_and_watched(tmp_path):
    archive = {"source": "math_archive", "fixture": "data/fixtures/math_archive", "validation_share": 0.1}
    archive |= {"conflicting_answers": "drop", "sizes": {"train": None, "validation": None, "test": None}}
    archive["path"] = str(tmp_path / "MATH.tar")
    sections = {"model": configs.TINY_MODEL, "data": archive, "watched": {"data": str(tmp_path)}}
    with pytest.raises(UserError, match=r"^data.path: .*MATH.tar not found"):
        checked(**sections)
    (tmp_path / "MATH.tar").touch()
    checked(**sections)
    checked(**sections | {"data": {**archive, "path": str(tmp_path / "none")}, "smoke": True})
    with pytest.raises(UserError, match=r"watched.data: data/fixtures does not hold data.path: .*MATH.tar"):
        checked(**sections | {"watched": {"data": "data/fixtures"}})
    # What is fetched is neither there nor watched.
    checked(
        **sections
        | {"watched": {"data": "data/fixtures"}, "data": {**archive, "path": "https://x.org/MATH.tar"}}
    )


def test_a_section_that_a_stage_trains_by_is_missed():
    config = configs.config()
    with pytest.raises(UserError, match="stage2: no such stage of training"):
        run_of(config.model_copy(update={"stages": {"stage1": config.stage("stage1")}}))


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"extractor": "bxed"}, "reward.extractor: there is no 'bxed'; did you mean boxed?"),
        ({"matcher": "intger"}, "reward.matcher: there is no 'intger'; did you mean integer?"),
        ({"terms": [{"name": "mtch", "weight": 1.0}]}, "reward.terms.0.name: there is no 'mtch'"),
        ({"terms": [{"name": "nowhere:term", "weight": 1.0}]}, "reward.terms.0.name: nowhere cannot be impo"),
    ],
)
def test_what_judges_is_found_by_its_name(reward, said):
    with pytest.raises(UserError, match=said):
        checked(reward=reward)


def test_a_judge_that_the_pipeline_makes_is_not_missed():
    judge = {"path": "models/base", "revision": None, "dtype": "float32", "template_options": {}}
    judge["prompt"] = "prompts/boxed/gold_judge.txt"
    match = {"name": "match", "weight": 1.0}
    checked(reward={"terms": [match, {"name": "gold_judge", "weight": 1.0, "judge": judge}]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "vlm"}, "runtime.yaml: engine: there is no 'vlm'; did you mean vllm?"),
        (
            {"engine": "vllm", "launch": {"sampler": "start"}},
            "params.yaml: stage1.sampling: reproducible expects equal bits",
        ),
        ({"launch": {"strategy": "fsdp2"}}, "fsdp2 needs GPUs and none is visible"),
        (
            {"launch": {"strategy": "ddp", "processes": 3}},
            "stage1: prompts_per_step: 64 is not divisible by the 3 processes",
        ),
        ({"launch": {"processes": 5}}, "stage1: prompts_per_step: 64 is not divisible by the 5 processes"),
    ],
)
def test_what_no_stage_could_run_with_is_refused(monkeypatch, settings, said):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=said):
        run_of(configs.config(), **settings)


def test_gpus_that_do_not_share_a_step_evenly_are_counted(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 6)
    with pytest.raises(UserError, match="64 is not divisible by the 6 processes"):
        checked()


def test_what_only_other_machines_have_is_not_asked_of_this_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    run_of(configs.config(), launch={"strategy": "fsdp2", "processes": 2, "through": "srun"})


def test_it_takes_no_seconds_to_load():
    """Nor to run, where one process on a CPU is all that can come of the settings."""
    script = """
import shutil, sys
shutil.which = lambda name: None
from tasks import check
from tests import configs
check.run(None, configs.config(), configs.runtime())
print([name for name in ("torch", "transformers", "pandas", "sympy", "prefect") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
