"""The profiles: complete, valid, and composed to the `params.yaml` that is in the checkout."""

import subprocess
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

import pytest
import yaml
from dvc.utils.hydra import compose_and_dump
from pydantic import BaseModel

from score_core.config.parsing import Config, load_config, smoke_sized
from score_core.config.schema import LocalData, TinyModel
from tasks.commands.profiles import compose, profiles

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


def dvc_composes(path: Path, *overrides: str) -> str:
    """What `dvc exp run -S ...` writes to params.yaml."""
    # Not its plug-in, which looks at the checkout's own params.yaml.
    compose_and_dump(path, str(CONF), None, "config", str(path.parent), list(overrides))
    return path.read_text()


def keys(model: type[BaseModel], content: dict, prefix: str = "") -> set[str]:
    """Every key that `model` knows, of the alternatives in it the one that `content` chooses."""
    known = set()
    for name, field in model.model_fields.items():
        known.add(f"{prefix}{name}")
        value = content.get(name)
        annotation = field.annotation
        options = get_args(annotation) if get_origin(annotation) not in (None, dict) else (annotation,)
        if isinstance(annotation, UnionType):
            options = annotation.__args__
        for option in options:
            if not (isinstance(option, type) and issubclass(option, BaseModel) and isinstance(value, dict)):
                continue
            source = option.model_fields.get("source")
            if source is None or value["source"] in get_args(source.annotation):
                known |= keys(option, value, f"{prefix}{name}.")
    return known


def flat(content: dict, prefix: str = "") -> set[str]:
    """Every key of nested dictionaries, the inner ones by their path."""
    found = set()
    for name, value in content.items():
        found.add(f"{prefix}{name}")
        if isinstance(value, dict) and name != "template_options":
            found |= flat(value, f"{prefix}{name}.")
    return found


@pytest.fixture(params=profiles(CONF))
def profile(request):
    return request.param


def test_the_embedded_default_and_a_hub_profile_are_there():
    assert {"default", "gsm8k"} <= set(profiles(CONF))


def test_params_yaml_is_what_dvc_composes_of_the_default(tmp_path):
    # A user may have edited params.yaml or selected another profile; then the committed one counts.
    committed = subprocess.run(
        ["git", "show", "HEAD:./params.yaml"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    composed = dvc_composes(tmp_path / "params.yaml")
    assert composed in ((ROOT / "params.yaml").read_text(), committed), (
        "params.yaml is not what conf/ composes; change conf/profile/default.yaml, then "
        "`dvc exp run -S profile=default`, or copy the composition"
    )


def test_profiles_are_composed_as_dvc_does_it(profile, tmp_path):
    for overrides in ([f"profile={profile}"], [f"profile={profile}", "smoke=true", "stage2.alpha=0.5"]):
        assert compose(overrides, CONF) == dvc_composes(tmp_path / "params.yaml", *overrides)


def test_a_profile_names_itself_and_states_every_key(profile):
    content = yaml.safe_load(compose([f"profile={profile}"], CONF))
    assert content["profile"] == profile
    assert flat(content) == keys(Config, content)


def test_a_profile_is_valid_at_full_and_at_toy_size(profile, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "params.yaml"
    path.write_text(compose([f"profile={profile}"], CONF))
    full = load_config(path)
    path.write_text(compose([f"profile={profile}", "smoke=true"], CONF))
    small = load_config(path)
    assert small == smoke_sized(full.model_copy(update={"smoke": True}))
    assert small.stage1.steps <= 2 and small.stage2.steps <= 2
    # A smoke run needs no network.
    assert small.data.source == "addition" or (
        isinstance(small.data, LocalData) and Path(small.data.path).is_dir()
    )
    assert small.model.source == "addition" or isinstance(small.model, TinyModel)


def test_prompt_files_are_there_and_in_the_folder_that_dvc_watches(profile, monkeypatch):
    monkeypatch.chdir(ROOT)
    said = Config(**yaml.safe_load(compose([f"profile={profile}"], CONF))).conversation
    assert said.folder is not None
    assert "{problem}" in Path(said.first).read_text()
    assert Path(said.retry).read_text().strip()


def test_the_default_is_the_experiment_of_the_paper_scaled_down():
    config = Config(**yaml.safe_load(compose([], CONF)))
    assert (config.seed, config.stage2.alpha, config.stage2.gamma) == (11, 3.0, 0.0)
    assert (config.stage1.beta1, config.stage1.beta2) == (0.01, 0.1)


def test_prompt_files_elsewhere_are_refused(tmp_path):
    path = tmp_path / "params.yaml"
    content = yaml.safe_load(compose([], CONF))
    content["conversation"]["few_shot"] = "elsewhere/shots.jsonl"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(
        Exception, match=r"few_shot: elsewhere/shots.jsonl is not in folder: prompts/addition"
    ):
        load_config(path)
