"""The stage `prepare_base_model`, run in an empty folder."""

import argparse
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from score_core.embedded import tiny_model
from score_core.errors import UserError
from score_core.models.folders import load_model, load_tokenizer
from tasks import prepare_base_model
from tests.configs import config, runtime

BASE = Path("models/base")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def prepare(settings):
    """Runs the stage."""
    prepare_base_model.run(argparse.Namespace(output=BASE), settings, runtime())


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_tiny_model_is_built(family):
    prepare(config(model={"source": "tiny", "family": family}))
    assert load_model(BASE).config.model_type == family
    load_tokenizer(BASE)
    assert [path.name for path in Path("models").iterdir()] == ["base"]


def test_a_local_model_is_copied():
    tiny_model.build("qwen2", 1, Path("mine"))
    prepare(config(model={"source": "local", "path": "mine"}))
    weights = "model.safetensors"
    assert (BASE / weights).read_bytes() == (Path("mine") / weights).read_bytes()


def test_a_smoke_run_takes_a_small_model_of_the_same_kind():
    hub = {"source": "hub", "path": "Some/Model", "family": "qwen3", "dtype": "bfloat16", "quantize": None}
    prepare(config(smoke=True, model=hub))
    assert load_model(BASE).config.model_type == "qwen3"
    whole = config(data={"source": "addition", "digits": 2}, model={"source": "addition", "steps": 10**9})
    prepare(whole.model_copy(update={"smoke": True}))  # or it would never end
    assert load_model(BASE).config.hidden_size == whole.model.hidden_size


def test_the_seed_decides_the_tiny_model():
    bytes_of = []
    for seed in (5, 5, 6):
        prepare(config(seed=seed))
        bytes_of.append((BASE / "model.safetensors").read_bytes())
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("tokenizer.json", "mine: no tokenizer, found"),
        ("config.json", "mine: config.json is missing"),
        ("model.safetensors", "mine: no *.safetensors"),
        ("chat_template.jinja", "mine: the tokenizer has no chat template"),
    ],
)
def test_an_incomplete_model_is_refused_by_its_own_name_and_leaves_nothing(file, words):
    tiny_model.build("qwen2", 1, Path("mine"))
    (Path("mine") / file).unlink()
    with pytest.raises(UserError) as caught:
        prepare(config(model={"source": "local", "path": "mine"}))
    assert words in str(caught.value)
    assert ".tmp" not in str(caught.value) and "\n" not in str(caught.value)
    assert list(Path("models").iterdir()) == []


def test_an_unknown_architecture_is_refused():
    tiny_model.build("qwen2", 1, Path("mine"))
    path = Path("mine/config.json")
    path.write_text(path.read_text().replace('"qwen2"', '"nonesuch"'))
    with pytest.raises(UserError, match=r"model\.path mine: "):
        prepare(config(model={"source": "local", "path": "mine"}))


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(number):
    tiny_model.build("qwen2", 1, Path("mine"))
    weights = load_file("mine/model.safetensors")
    weights["model.norm.weight"][0] = number
    save_file(weights, "mine/model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"model\.path mine: 1 of \d+ numbers of model\.norm\.weight in model\.s"
    ):
        prepare(config(model={"source": "local", "path": "mine"}))
    assert list(Path("models").iterdir()) == []
