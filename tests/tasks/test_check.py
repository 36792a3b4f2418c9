"""What the first stage refuses: stages without a section, and paths that the pipeline itself makes."""

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


def run_of(config: Config) -> None:
    check.run(None, config, None)


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
