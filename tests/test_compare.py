"""experiments/compare: its arms' settings, its page, and two methods on two seeds at toy size."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from benchmarks.arms import METHODS, VARIANTS, arms, check_cells, hangs_on, trained_methods, variants
from benchmarks.compare import CONTROL, FIGURES, RESAMPLED_AT, page, read_table, signs, votes_table
from benchmarks.compare_figures import validation
from benchmarks.paired import paired, student, with_interval
from score_core.algorithms import SETTINGS
from score_core.config.model import AdditionModel
from score_core.config.parsing import parse_config
from score_core.errors import UserError
from tasks.commands.profiles import compose, profiles
from tasks.runner import pipeline
from tests.configs import ROOT, config
from tests.test_pipeline import Checkout


def methods() -> dict[str, Any]:
    return yaml.safe_load((ROOT / METHODS).read_text())


def resolved(*overrides: str, rows: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """What each method's model hangs on."""
    made = arms(yaml.safe_load(compose(list(overrides), ROOT / "conf")), rows or methods(), "test")
    return {name: hangs_on(parse_config(one, SETTINGS, "test"), name) for name, one in made.items()}


def changed(*overrides: str) -> set[str]:
    """The methods that other settings train again."""
    before, after = resolved(), resolved(*overrides)
    return {name for name in before if before[name] != after[name]}


def test_every_arm_is_valid_on_every_profile() -> None:
    names = set(trained_methods(methods()))
    for profile in set(profiles(ROOT / "conf")) - {"sr_r1"}:
        assert set(resolved(f"profile={profile}")) == names
    with pytest.raises(
        UserError, match=r"test: stage1\.algorithm is sr_r1, and the matrix compares with SCoRe"
    ):
        resolved("profile=sr_r1")
    assert set(methods()["arms"]) <= names <= set(methods()["labels"])
    assert set(methods()["resampled"]) <= names
    assert {f"{name}_resampled" for name in methods()["resampled"]} <= set(methods()["labels"])


@pytest.mark.parametrize("profile", sorted(set(profiles(ROOT / "conf")) - {"sr_r1"}))
def test_variants_are_those_that_the_model_knows(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(compose([f"profile={profile}"], ROOT / "conf"))
    configs = {name: parse_config(one, SETTINGS, "test") for name, one in variants(content).items()}
    assert set(configs) == set(VARIANTS)
    verifying, retry = configs["base_verifying"].model, configs["fix"].conversation.retry
    if isinstance(verifying, AdditionModel):
        assert verifying.verdict_share == 0.5 and retry == "prompts/addition/fix.txt"
    else:
        assert verifying == parse_config(content, SETTINGS, "test").model
        assert retry.endswith("/self_refine.txt") and (ROOT / retry).is_file()
    for name, read in VARIANTS.items():
        assert set(hangs_on(configs[name], name)) == set(read)
    elsewhere = content | {"conversation": content["conversation"] | {"folder": "prompts/mine"}}
    with pytest.raises(UserError, match=r"prompts/mine/\w+.txt: not found; write there what to say in place"):
        variants(elsewhere)


def test_what_no_cell_could_run_with_is_refused() -> None:
    judge = {"path": "models/base", "revision": None, "dtype": "float32", "template_options": {}}
    terms = [{"name": "match", "weight": 1.0}, {"name": "gold_judge", "weight": 1.0}]
    terms[1]["judge"] = judge | {"prompt": "prompts/boxed/gold_judge.txt"}
    base = {"verify": "prompts/tagged/verify.txt", "revise": "prompts/tagged/revise.txt"}

    def check(rows: dict[str, Any] | None = None, **sections: Any) -> None:
        check_cells(config(**{"conversation": base, **sections}), methods() | (rows or {}), "test")

    check()
    with pytest.raises(UserError, match=r"test: reward.terms.1.judge.path: models/base is the pipeline's"):
        check(reward={"terms": terms})
    for key in base:
        without: dict[str, Any] = {"conversation": base | {key: None}}
        with pytest.raises(UserError, match=rf"test: conversation.{key}: null, .*methods.yaml has in from_"):
            check(**without)
        with pytest.raises(UserError, match="set from_verifying and seeds_verifying there to"):
            check({"from_verifying": []}, **without)
        check({"from_verifying": [], "seeds_verifying": []}, **without)
    elsewhere = {name: f"/mine/{name}.txt" for name in ("first", "retry", *base)} | {"folder": "/mine"}
    with pytest.raises(UserError, match=r"test: conversation.folder: /mine: .*copy them there"):
        check(conversation=elsewhere)


def test_a_changed_value_trains_the_arms_again_whose_settings_hold_it() -> None:
    # Not no_bonus, which sets it to 0.
    assert changed("stage2.alpha=5") == {"stage2", "no_stage1", "offline"}
    assert changed("stage1.beta2=0.2") == {"stage1"}
    assert changed("star.iterations=2") == {"star", "star_right", "star_stage2"}
    assert changed("evaluation.batch_size=7", "report.title=other", "seed=12") == set()
    assert changed("training.steps=7") == set(resolved())
    assert changed("training.baseline=none") == set(resolved()) - {"grpo"}


def test_all_arms_sample_as_many_trajectories() -> None:
    found, rows = resolved(), methods()
    steps = {name: one["stage"]["steps"] * one["stage"].get("iterations", 1) for name, one in found.items()}
    for name in rows["from_stage1"]:
        steps[name] += steps["stage1"]
    assert {count for name, count in steps.items() if name != "stage1"} == {160}


def test_the_commands_of_pag_are_those_of_the_others_but_for_its_base_model() -> None:
    stages = yaml.safe_load((ROOT / METHODS.parent / "dvc.yaml").read_text())["stages"]
    for name in ("train", "evaluate"):
        ours, others = (stages[key] for key in (f"{name}_verifying", name))
        verifies = " --set evaluation.verifies=true" if name == "evaluate" else ""
        assert ours["cmd"].replace("/base_verifying", "/base").replace(verifies, "") == others["cmd"]
        assert [one.replace("/base_verifying", "/base") for one in ours["deps"]] == others["deps"]
        assert {key: ours[key] for key in ours if key not in ("matrix", "cmd", "deps")} == {
            key: others[key] for key in others if key not in ("matrix", "cmd", "deps")
        }
    plain = parse_config(
        arms(yaml.safe_load(compose([], ROOT / "conf")), methods(), "test")["pag"], SETTINGS, "test"
    )
    assert plain.stage("pag").verifies


def test_data_and_model_of_ones_own_are_compared_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> dict[str, str]:
        pipeline.main()
        return {path.name: path.read_text() for path in (tmp_path / "code").iterdir()}

    for name in ("mine", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("{}")
    watched = {"data": str(tmp_path / "mine"), "model": str(tmp_path / "models")}
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"watched": watched}
    monkeypatch.setattr(pipeline, "read_yaml", lambda *_: params)
    monkeypatch.setattr("sys.argv", ["pipeline", str(tmp_path / "code")])
    # A judge is in the model's folder.
    for folder, readers in (("mine", {"download_data"}), ("models", {"prepare_base_model", "train"})):
        before = written()
        (tmp_path / folder / "train.jsonl").write_text("{ }")
        after = written()
        assert {name for name in before if before[name] != after[name]} == readers
    stages = yaml.safe_load((ROOT / METHODS.parent / "dvc.yaml").read_text())["stages"]
    assert "code/download_data" in stages["data"]["deps"]
    for name in ("base", "base_verifying"):
        assert "code/prepare_base_model" in stages[name]["deps"]
    for name in ("train", "train_on", "train_verifying"):
        assert "code/train" in stages[name]["deps"]


def test_a_row_that_names_nothing_is_refused() -> None:
    own = methods()["arms"]
    rows = methods() | {"arms": own | {"star": {"section": "starr"}}}
    with pytest.raises(UserError, match=r"star: test has no stage starr; did you mean star"):
        resolved(rows=rows)
    with pytest.raises(UserError, match=r"methods.yaml: star: star.alpha: unknown key"):
        resolved(rows=methods() | {"arms": own | {"star": {"set": {"alpha": 1.0}}}})


GREEDY = {"temperature": 0.0, "top_p": 1.0, "samples": 1}


def table() -> pd.DataFrame:
    """Two seeds of two methods, of which one has no second seed, and one that failed."""
    cells = {("base", 1): 0.5, ("base", 2): 0.5, (CONTROL, 1): 0.7, (CONTROL, 2): 0.9, ("star", 1): 0.6}
    rows = [
        {"method": method, "seed": seed, **dict.fromkeys(FIGURES, cells.get((method, seed)))}
        for method in ("base", "star", "pair_sft", CONTROL)
        for seed in (1, 2)
    ]
    return pd.DataFrame(rows).assign(trajectories=10.0, tokens=20.0, signs="")


def test_cells_that_failed_are_shown_as_failed() -> None:
    text = page(table(), methods() | {"seeds": [1, 2]}, GREEDY)
    assert "| STaR (**failed or not run**: 2) | 60.0 |" in text
    assert "| Pair-SFT (**failed or not run**: 1, 2) | \u2013 |" in text
    assert "| SCoRe | 80.0 |" in text and "Gemini 1.5 Flash" in text


def test_the_page_says_how_answers_were_chosen() -> None:
    def second(evaluation: dict[str, Any]) -> str:
        return page(table(), methods(), evaluation).split("\n\n")[1]

    committed = (ROOT / METHODS.parent / "page.md").read_text().split("\n\n")[1]
    assert second(GREEDY) == committed
    sampled = {"temperature": 0.7, "top_p": 0.9, "samples": 4}
    assert second(sampled) == committed.replace(
        "greedy but for resampling",
        "sampled at temperature 0.7, top-p 0.9, mean of 4 samples a problem, resampling at 0.7",
    )
    assert "sampled at temperature 1, resampling" in second({"temperature": 1.0, "top_p": 1.0, "samples": 1})


def test_rows_of_another_sample_have_the_temperature_that_the_page_says() -> None:
    stage = yaml.safe_load((ROOT / METHODS.parent / "dvc.yaml").read_text())["stages"]["evaluate_resampled"]
    assert f"--set evaluation.temperature={RESAMPLED_AT} " in stage["cmd"]


def test_cells_that_showed_signs_of_collapse_say_so(tmp_path: Path) -> None:
    (tmp_path / "curves").mkdir()
    told = [{"sign": "copying", "until": None}, {"sign": "no entropy", "until": 50}]
    (tmp_path / "curves/2-star.json").write_text(json.dumps({"warnings": told}))
    assert signs(tmp_path, 2, "star") == "copying" and signs(tmp_path, 1, "star") == ""
    cells = table()
    cells.loc[(cells["method"] == "base") & (cells["seed"] == 2), "signs"] = "copying"
    text = page(cells, methods() | {"seeds": [1, 2]}, GREEDY)
    assert (
        f"| {methods()['labels']['base']} (signs of collapse: 2 copying) | 50.0 |" in text
        and "| SCoRe | 80.0 |" in text
    )


def test_differences_are_paired_by_seed() -> None:
    # -20 and -40 points: mean -30, standard error 10, Student's quantile of one degree of freedom 12.706.
    assert with_interval(paired(table(), "base", CONTROL, "accuracy_t2")) == "-30.0 [-157.1, +97.1]"
    assert with_interval(paired(table(), "star", CONTROL, "accuracy_t2")) == "-10.0"


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (30, 2.0423)])
def test_students_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert student(freedom) == pytest.approx(expected, abs=5e-5)


def test_votes_are_means_over_seeds_and_their_gain_is_paired(tmp_path: Path) -> None:
    assert votes_table(tmp_path, methods()) == ""
    (tmp_path / "metrics").mkdir()
    for seed, gain in ((11, 0.1), (12, 0.3)):  # of 10 and 30 points: mean 20, standard error 10
        row = {"parallel": 0.5, "sequential": 0.5 + gain, "gain": gain}
        path = tmp_path / "metrics" / f"{seed}-stage2_voted.json"
        path.write_text(json.dumps({"budgets": {"2": row, "4": row | {"parallel": 0.6}}}))
    lines = votes_table(tmp_path, methods()).splitlines()
    assert lines[-2] == "| SCoRe | 2 | 50.0 | 70.0 | +20.0 [-107.1, +147.1] |"
    assert lines[-1] == "| SCoRe | 4 | 60.0 | 70.0 | +20.0 [-107.1, +147.1] |"


def test_curves_of_the_methods_after_stage1_begin_with_it(tmp_path: Path) -> None:
    for folder in ("curves", "settings"):
        (tmp_path / folder).mkdir()
    for name, accuracy in (("stage1", 0.5), ("stage2", 0.7)):
        (tmp_path / "settings" / f"{name}.json").write_text(json.dumps({"stage": {"steps": 2}}))
        curve = pd.DataFrame({"step": [0, 2], "accuracy_t1": accuracy, "accuracy_t2": accuracy})
        curve.to_csv(tmp_path / "curves" / f"12-{name}_validation.csv", index=False)
    (found,) = validation(tmp_path, methods(), "stage2")
    assert found["step"].tolist() == [0, 2, 2, 4]
    assert found["accuracy_t2"].tolist() == [0.5, 0.5, 0.7, 0.7]


@pytest.mark.slow
def test_two_methods_on_two_seeds(tmp_path: Path) -> None:
    """Everything runs once; then nothing; then what a changed value is in, and the page."""
    checkout = Checkout(tmp_path)
    here = checkout.root / METHODS.parent
    rows = methods() | {"seeds": [1, 2], "from_base": ["stage1"], "from_stage1": ["stage2"]}
    # PAG's have a base model of their own: as many processes again.
    rows |= {"from_verifying": [], "seeds_verifying": []}
    rows |= {"resampled": ["stage1"], "voted": ["stage2"], "samples": 2}
    (here / "methods.yaml").write_text(yaml.safe_dump(rows))
    params = checkout.root / "params.yaml"
    params.write_text(compose(["smoke=yes"], checkout.root / "conf"))

    def repro() -> set[str]:
        done = subprocess.run(
            ["dvc", "repro"], cwd=here, env=checkout.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return set(re.findall(r"^Running stage '(\S+)'", done.stdout, re.MULTILINE)) - {"code"}

    names = ("train@{}-stage1", "train_on@{}-stage2", "evaluate@{}-stage1", "evaluate_on@{}-stage2")
    names += (
        "evaluate_base@{}",
        "evaluate_fix@{}",
        "evaluate_resampled@{}-stage1",
        "evaluate_voted@{}-stage2",
    )
    cells = {name.format(seed) for name in (*names, "data@{}", "base@{}") for seed in (1, 2)}
    assert repro() == {*cells, "settings", "page"}
    found = read_table(here, rows)
    assert len(found) == 2 * 5 and found[FIGURES].notna().all().all()
    spent = found.set_index(["method", "seed"])["trajectories"]
    assert spent[("stage2", 1)] == 2 * 2 * 4 * 2 and spent[("base", 1)] == 0
    assert json.loads((here / "curves/2-stage2.json").read_text())["steps"] == 2
    text = (here / "page.md").read_text()
    assert "failed" not in text and "| SCoRe | 2 | " in text
    drawn = re.findall(r"\((\w+\.svg)\)", text)
    assert drawn == ["differences.svg", "curves.svg", "votes.svg"]
    assert all((here / name).read_text().count("SCoRe") for name in drawn)

    assert repro() == set()
    params.write_text(compose(["smoke=yes", "stage2.alpha=1.0"], checkout.root / "conf"))
    done = checkout.run("python", "-m", "flows.compare", "--jobs", "2")
    ran = set(re.findall(r"Running stage '(\S+)'", done)) - {"code"}
    assert f"default-smoke: {len(ran) + 1} stages ran, " in done, done
    trained, evaluated = ({f"{stage}_on@{seed}-stage2" for seed in (1, 2)} for stage in ("train", "evaluate"))
    evaluated |= {f"evaluate_voted@{seed}-stage2" for seed in (1, 2)}
    # A base model of toy size earns nothing under any alpha; models that are equal are not evaluated again.
    assert {"settings", *trained} <= ran <= {"settings", *trained, *evaluated, "page"}
