"""The profiles: complete, valid, and composed to the `params.yaml` that is in the checkout."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc.exceptions import DvcException
from dvc.utils.hydra import compose_and_dump

from score_core.algorithms import SETTINGS
from score_core.config.model import TinyModel
from score_core.config.parsing import parse_config
from score_core.errors import UserError
from tasks.commands.profiles import compose, profiles

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


def dvc_composes(path: Path, *overrides: str) -> str:
    """What `dvc exp run -S ...` writes to params.yaml."""
    # Not its plug-in, which looks at the checkout's own params.yaml.
    compose_and_dump(path, str(CONF), None, "config", str(path.parent), list(overrides))
    return path.read_text()


def flat(content: dict, prefix: str = "") -> dict[str, object]:
    """The values of nested dictionaries by their paths."""
    found = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def composed(*overrides: str) -> dict:
    return yaml.safe_load(compose(list(overrides), CONF))


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
    for overrides in ([f"profile={profile}"], [f"profile={profile}", "smoke=yes", "stage2.gamma=0.5"]):
        assert compose(overrides, CONF) == dvc_composes(tmp_path / "params.yaml", *overrides)


def test_a_profile_names_itself_and_is_complete(profile):
    content = composed(f"profile={profile}")
    assert content["profile"] == profile
    # Every key is required, and an unknown one refused.
    config = parse_config(content, SETTINGS, "test")
    assert not config.smoke and (config.used_data, config.used_model) == (config.data, config.model)


def test_toy_size_changes_how_much_and_not_what(profile, monkeypatch):
    monkeypatch.chdir(ROOT)
    full, small = composed(f"profile={profile}"), composed(f"profile={profile}", "smoke=yes")
    toy = flat(yaml.safe_load((CONF / "smoke" / "yes.yaml").read_text()))
    assert flat(small) == flat(full) | toy
    config = parse_config(small, SETTINGS, "test")
    # Not in a stage, where the profile's own sizes would win.
    assert {stage.steps for stage in config.stages.values()} == {2}
    # A smoke run needs no network.
    data, model = config.used_data, config.used_model
    if config.data.source == "hub":
        assert data.source == "local" and Path(data.path).is_dir()
        assert (data.columns, data.sizes) == (config.data.columns, config.data.sizes)
    if config.model.source == "hub":
        assert model == TinyModel(source="tiny", family=config.model.family)
        assert (config.dtype, config.quantize) == ("float32", None)
    if config.model.source == "addition":
        assert model.steps == config.model.smoke_steps < config.model.steps


@pytest.fixture
def plugin(monkeypatch):
    """What DVC calls before it composes."""
    compose([], CONF)  # hydra looks for plug-ins once, and is not to find this one in later tests
    monkeypatch.syspath_prepend(str(CONF / "plugins"))
    return importlib.import_module("hydra_plugins.keep_hand_edits")


def test_smoke_true_is_told_the_new_word(plugin, monkeypatch):
    with pytest.raises(DvcException, match="smoke=true: `-S smoke=yes` selects toy size"):
        monkeypatch.setattr(sys, "argv", ["dvc", "exp", "run", "--temp", "-S", "smoke=true"])
        plugin.KeepHandEdits().manipulate_search_path(None)


@pytest.mark.parametrize("where", [[], ["--temp"], ["--queue"]])
def test_dvc_exp_run_keeps_the_profile_or_is_told_another(where, plugin, tmp_path, monkeypatch):
    (tmp_path / "conf").symlink_to(CONF)
    (tmp_path / "params.yaml").write_text(compose(["profile=gsm8k"], CONF))
    monkeypatch.setattr(plugin, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def composes(*overrides):
        values = [word for one in overrides for word in ("-S", one)]
        monkeypatch.setattr(sys, "argv", ["dvc", "exp", "run", *where, *values])
        plugin.KeepHandEdits().manipulate_search_path(None)

    composes("profile=gsm8k", "seed=12")
    composes("params.yaml:profile=default")
    with pytest.raises(DvcException, match=r"profile: gsm8k, and what names no profile .* add `-S profile=g"):
        composes("seed=12")


def test_prompt_files_are_there_and_in_the_folder_that_dvc_watches(profile, monkeypatch):
    monkeypatch.chdir(ROOT)
    said = parse_config(composed(f"profile={profile}"), SETTINGS, "test").conversation
    assert said.folder is not None
    assert "{problem}" in Path(said.first).read_text()
    assert Path(said.retry).read_text().strip()


def test_a_profile_has_an_instruction_to_refine_by(profile, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = composed(f"profile={profile}")
    # What the embedded base model knows of instructions it was taught.
    name = "fix.txt" if content["model"]["source"] == "addition" else "self_refine.txt"
    content["conversation"]["retry"] = f"{content['conversation']['folder']}/{name}"
    said = parse_config(content, SETTINGS, "test").conversation
    assert Path(said.retry).read_text().strip() != Path(said.folder, "retry.txt").read_text().strip()


def test_a_profile_has_every_method_to_compare_with(profile):
    stages = dict(parse_config(composed(f"profile={profile}"), SETTINGS, "test").stages)
    scores = {"score_stage1", "score_stage2"}  # what the pipeline trains, where a profile has nothing else
    own = {stages.pop(name).algorithm for name in ("stage1", "stage2")}
    assert own == (scores if profile != "sr_r1" else {"sr_r1"})
    assert {stage.algorithm for stage in stages.values()} == SETTINGS.keys() - scores


def test_the_default_is_the_experiment_of_the_paper_scaled_down():
    config = parse_config(composed(), SETTINGS, "test")
    first, second = (config.stage(name).model_dump() for name in ("stage1", "stage2"))
    assert (config.seed, second["alpha"], second["gamma"]) == (11, 3.0, 0.0)
    assert (first["beta1"], first["beta2"], first["learning_rate"]) == (0.01, 0.1, 0.001)


def test_prompt_files_elsewhere_are_refused():
    content = composed()
    content["conversation"]["few_shot"] = "elsewhere/shots.jsonl"
    with pytest.raises(
        UserError, match=r"few_shot: elsewhere/shots.jsonl is not in folder: prompts/addition"
    ):
        parse_config(content, SETTINGS, "test")
