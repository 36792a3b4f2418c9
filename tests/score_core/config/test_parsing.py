"""Parameters: what is refused and with which words."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from score_core.algorithms import SETTINGS
from score_core.config.parsing import load_config, load_runtime, parse_config
from score_core.config.section import Section
from score_core.errors import UserError
from score_core.files import parse_yaml
from tests.configs import ROOT, config, content, runtime

LEFT_OUT = "missing; copy it from conf/base.yaml or from a profile in conf/profile/"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"stage2": {"alhpa": 3}}, "stage2.alhpa: unknown key; did you mean alpha?"),
        ({"stage2": {"stepz": 3}}, "stage2.stepz: unknown key; did you mean steps?"),
        ({"training": {"stepz": 3}}, "training.stepz: unknown key; did you mean steps?"),
        ({"training": {"alpha": 3}}, "training.alpha: not shared by all stages; move it to one with"),
        ({"sede": 1}, "sede: unknown key; did you mean seed?"),
        ({"trainin": {"steps": 1}}, "trainin: unknown key; did you mean training?"),
        ({"stages": {}}, "stages: unknown key"),
        ({"data": {"source": "local", "revision": "main"}}, "data.revision: unknown key"),
        (
            {"data": {"source": "attic"}},
            "data.source: expected one of 'addition', 'math_archive', 'arithmetic', 'code', 'reasoning_gym', "
            "'hub', 'local'",
        ),
        ({"reward": {"terms": [{"nam": "match", "weight": 1}]}}, "reward.terms.0.nam: unknown key; did you"),
        ({"stage1": {"steps": "many"}}, "found 'many'"),
        ({"stage1": {"steps": 1.5}}, "stage1.steps: "),
        ({"stage1": {"learning_rate": float("nan")}}, "stage1.learning_rate: "),
        ({"stage1": {"learning_rate": float("inf")}}, "stage1.learning_rate: "),
        ({"stage2": {"alpha": 10, "gamma": 0.2}}, "stage2: alpha * gamma is 2, more than 1"),
        ({"stage2": {"top_p": 0.9}}, "stage2.top_p: refused: training samples from the whole distribution"),
        ({"training": {"top_k": 50}}, "training.top_k: refused"),
        ({"stage1": {"baseline": "leave_one_out_given_first"}}, "would cancel it"),
        ({"stage1": {"kl_estimator": "k1"}}, "zero expected gradient; use k1_in_reward"),
        ({"stage1": {"kl_estimator": "k4"}}, "stage1.kl_estimator: "),
        (
            {"stage1": {"beta2": 0, "adaptive_beta2": {"target_kl": 1, "horizon": 10}}},
            "stage1: adaptive_beta2 scales beta2, and beta2 is 0; give it a positive start",
        ),
        (
            {
                "training": {"kl_estimator": "k1_in_reward"},
                "stage1": {"adaptive_beta2": {"target_kl": 1, "horizon": 10}},
            },
            "stage1: adaptive_beta2 with k1_in_reward would change rewards inside a step",
        ),
        ({"training": {"adam_betas": [0.9, 1.0]}}, "training.adam_betas.1: input should be less than 1"),
        ({"training": {"steps": 10**30}}, "training.steps: input should be less than or equal to"),
        ({"lora": {"targets": []}}, "lora.targets"),
        ({"lora": {"targets": [""]}}, "lora.targets"),
        (
            {"model": {"source": "addition", "heads": 3}, "data": {"source": "addition"}},
            "model: heads: 3 heads do not share hidden_size: 64 in even parts",
        ),
        (
            {"conversation": {"folder": None}},
            "test: conversation.folder: expected the folder that holds the prompt files, which DVC watches "
            "for changes; name it, found None",
        ),
        ({"conversation": {"max_new_tokens": 10**12}}, "conversation.max_new_tokens: input should be less"),
        (
            {"conversation": {"template_options": {"thinking": "no"}}},
            "no is a word in YAML 1.2; write",
        ),
        ({"evaluation": {"top_p": 0.9}}, "does nothing in greedy decoding"),
        ({"evaluation": {"attempts": 11}}, "evaluation.attempts: "),
        ({"model": {"source": "addition"}}, "test: model.source: addition only knows sums"),
        ({"model": {"source": "local", "quantize": "nf4"}}, "test: model.quantize: nf4 weights are not"),
        (
            {"model": {"source": "local", "path": "m/mine"}, "watched": {"model": "m/min"}},
            "test: watched.model: m/min does not hold model.path: m/mine, whose changes would go unnoticed; "
            "set watched.model: m/mine.",
        ),
        ({"watched": {"data": "prompts"}}, "test: watched.data: prompts does not hold data.path: data/fix"),
        ({"model": {"source": "hub", "trust_remote_code": True}}, "is never run"),
        ({"smoke": True, "data": {"source": "hub", "fixture": None}}, "test: data.fixture: a smoke run of d"),
        (
            {"data": {"source": "addition", "digits": 3}, "evaluation": {"by": ["level"]}},
            "test: evaluation.by: problems of data.source: addition have no columns; set []",
        ),
        ({"evaluation": {"samples": 8}}, "8 greedy dialogues are the same one; set a temperature or samp"),
        ({"stage3": {"algorithm": "score_stage2", "alhpa": 3}}, "stage3.alhpa: unknown key; did you mean"),
        (
            {"stage2": {"algorithm": "score_stage3"}},
            "stage2.algorithm: no algorithm is called score_stage3; did you mean score_stage2? "
            "Known are score_stage1, score_stage2",
        ),
    ],
)
def test_mistakes_are_one_line_with_key_and_remedy(sections: dict[str, Any], words: str) -> None:
    assert words in said_of(content(**sections))


def said_of(whole: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(whole, SETTINGS, "test")
    message = str(caught.value)
    assert message.startswith("test: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"steps": 0}, "steps: input should be greater than or equal to 1, found 0."),
        (
            {"samples_per_prompt": 1},
            "baseline: leave_one_out compares a prompt's trajectories with one another and "
            "samples_per_prompt is 1; sample at least 2, or use moving_average or none.",
        ),
    ],
)
def test_a_mistake_is_said_once_and_of_the_section_in_which_it_stands(
    mistake: dict[str, Any], words: str
) -> None:
    key, colon = ("training.", "") if "steps" in mistake else ("training", ": ")
    assert said_of(content(training=mistake)) == f"test: {key}{colon}{words}"
    key = key.replace("training", "stage2")
    assert said_of(content(stage2=mistake)) == f"test: {key}{colon}{words}"


@pytest.mark.parametrize(
    "key",
    [
        "profile", "seed", "lora", "report", "data.source", "data.path", "model.family", "reward.terms",
        "training.steps", "stage1.beta2", "stage2.gamma", "conversation.system",
    ],
)  # fmt: skip
def test_a_missing_key_is_named_with_where_to_find_it(key: str) -> None:
    whole = content()
    *sections, name = key.split(".")
    inner = whole
    for section in sections:
        inner = inner[section]
    del inner[name]
    assert said_of(whole).startswith(f"test: {key}: {LEFT_OUT}")


def test_no_key_has_a_default_in_the_code() -> None:
    def below(model: type[Section]) -> list[type[Section]]:
        return [model, *(found for child in model.__subclasses__() for found in below(child))]

    models = below(Section)
    assert len(models) > 20
    given = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if model.__module__.startswith("score_core.") and not field.is_required()
    ]
    assert given == []


def test_a_stage_has_what_training_shares_and_what_it_overrides() -> None:
    stages = config(training={"steps": 7}, stage2={"steps": 9}, plain={**content()["stage2"]}).stages
    found = {name: (stage.algorithm, stage.steps) for name, stage in stages.items()}
    expected = {"stage1": ("score_stage1", 7), "stage2": ("score_stage2", 9), "plain": ("score_stage2", 7)}
    assert found.items() >= expected.items()
    assert config().model_dump()["stages"]["stage2"]["alpha"] == 10.0


def test_a_stage_is_had_by_its_name() -> None:
    assert config(stage1={"beta2": 0.7}).stage("stage1").model_dump()["beta2"] == 0.7
    with pytest.raises(UserError, match=r"stgae1: no such stage .*mean stage1\? It has stage1, stage2"):
        config().stage("stgae1")


def test_one_sample_goes_with_a_baseline_that_needs_no_others() -> None:
    single = {"samples_per_prompt": 1, "baseline": "moving_average", "baseline_later": "none"}
    assert config(stage1=single).stage("stage1").samples_per_prompt == 1


def test_paying_for_failure_must_be_asked_for() -> None:
    stage2 = {"alpha": 10, "gamma": 0.2, "allow_paid_failure": True}
    assert config(stage2=stage2).stage("stage2").model_dump()["gamma"] == 0.2


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().stage("stage1").steps = 3


@pytest.mark.parametrize("old", ["stage1", "stage2", "reward.shape"])
def test_an_older_form_is_told_the_new_key_in_one_line(old: str) -> None:
    whole = content()
    if old == "reward.shape":
        whole["reward"]["shape"] = whole["reward"].pop("terms")
        new = "`reward.terms: [{name: match, weight: 1.0}]`"
    else:
        whole[old] = {**whole.pop("training"), **whole[old]}
        del whole[old]["algorithm"]
        new = f"`{old}.algorithm: score_{old}`, and what stages share stands in `training`"
    message = said_of(whole)
    assert message.startswith(f"test: {old} is written for an older version: ")
    assert new in message and "docs/changes.md" in message


def test_without_training_there_is_one_line() -> None:
    whole = content()
    del whole["training"]
    assert said_of(whole).startswith("test: training: the section is missing; copy it from conf/base.yaml")


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content()))
    return path


def test_changes_go_over_the_file(params: Path) -> None:
    changes = [
        "seed=12",
        "stage2.alpha=3",
        "training.learning_rate=1e-4",
        "lora={rank: 2, alpha: 4, targets: all-linear}",
        "conversation.template_options.thinking=false",
        "report.title=a = b",
    ]
    changed = load_config(params, SETTINGS, changes)
    assert changed == config(
        seed=12,
        stage2={"alpha": 3.0},
        training={"learning_rate": 0.0001},
        lora={"rank": 2, "alpha": 4, "targets": "all-linear"},
        conversation={"template_options": {"thinking": False}},
        report={"title": "a = b"},
    )
    assert load_config(params, SETTINGS) == config()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("seed", "--set seed: expected KEY=VALUE, e.g. --set stage2.alpha=3."),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("stage2.=3", "--set stage2.=3: expected KEY=VALUE"),
        ("seed=[", "--set seed=[: [ is not valid YAML"),
        ("seed.low=3", "--set seed.low=3: seed is 5 and has no keys; set seed as a whole."),
        ("lora.rank=3", "--set lora.rank=3: lora is None and has no keys; set lora as a whole."),
        ("stage2.alhpa=3", "params.yaml with --set stage2.alhpa=3: stage2.alhpa: unknown key; did you mean"),
        ("stage7.alpha=3", "stage7: unknown key; did you mean stage"),
    ],
)
def test_a_wrong_change_is_one_line(params: Path, change: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(params, SETTINGS, [change])
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not found; run from the checkout"),
        ("a: [", "not valid YAML (line 1: expected the node"),
        ("a: 1\nb: 2\na: 3", 'line 3: found duplicate key "a"'),
        ("a: 2020-13-45", "not valid YAML (month must be in 1..12)"),
        ("a: \x94", "not valid YAML (unacceptable character"),
        ("a: é".encode("utf-16"), "cannot be read as UTF-8 text"),
        ("", "expected `key: value` lines"),
        ("- a", "expected `key: value` lines"),
        ("threads: 0", "threads: input should be greater than"),
        ("thread: 1", "unknown key; did you mean threads?"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    path = tmp_path / "runtime.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for load in (load_runtime, lambda path: load_config(path, SETTINGS)):
        with pytest.raises(UserError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        if load is load_runtime:
            assert words in str(caught.value)


def test_runtime_yaml_states_every_setting_and_may_leave_out_none(tmp_path: Path) -> None:
    assert load_runtime(ROOT / "runtime.yaml", {}) == runtime()
    path = tmp_path / "runtime.yaml"
    path.write_text((ROOT / "runtime.yaml").read_text().replace("log_level: info", ""))
    with pytest.raises(UserError, match=r"log_level: missing; copy it from .*`git show HEAD:runtime.yaml`"):
        load_runtime(path, {})


def test_the_environment_goes_before_what_the_file_says_of_launching() -> None:
    found = load_runtime(ROOT / "runtime.yaml", {"SCORE_LAUNCH_PROCESSES": "3", "SCORE_OTHER": "x"})
    assert found == runtime(launch={"processes": 3})
    with pytest.raises(UserError, match=r"with SCORE_LAUNCH_PROCESSES of the env.*: launch.processes: "):
        load_runtime(ROOT / "runtime.yaml", {"SCORE_LAUNCH_PROCESSES": "many"})


@pytest.mark.parametrize("text", ["011", "1:20", "1_000", "0o11", "yes", "1e-4", "2020-01-02", "~", "0x1F"])
def test_what_a_file_says_is_what_dvc_reads(text: str) -> None:
    from dvc.utils.serialize import parse_yaml as read_by_dvc

    assert parse_yaml(f"a: {text}") == read_by_dvc(f"a: {text}", "params.yaml")
    assert parse_yaml("011") == 11


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2020-13-45", "(month must be"),
        ("\udcff", "is not valid YAML"),
        ('"srun', "not valid"),
    ],
)
def test_an_environment_that_is_no_yaml_is_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match="SCORE_LAUNCH_THROUGH=") as caught:
        load_runtime(ROOT / "runtime.yaml", {"SCORE_LAUNCH_THROUGH": text})
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["srun 'a", " "])
def test_what_starts_the_machines_is_a_command(line: str) -> None:
    with pytest.raises(UserError, match=r"launch\.through: "):
        runtime(launch={"through": line})


@pytest.mark.skipif(find_spec("wandb") is not None, reason="W&B is installed here")
def test_a_tracker_that_is_not_installed_is_named_before_any_work() -> None:
    with pytest.raises(UserError, match="tracker: wandb is not installed; `pip install wandb`, or set none"):
        runtime(tracker="wandb")
