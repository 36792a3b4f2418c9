"""Pages of pipelines other than the default one: their names, numbers and figures, nothing of SCoRe's."""

import json
import re

import pandas as pd
import pytest

from score_core.errors import UserError
from score_core.report.card import render_card
from score_core.report.inputs import read_inputs
from score_core.report.page import render_page
from score_core.report.plots import kept_at
from tests.run_files import config, files, write_run
from tests.score_core.report.reading_html import MINUS, Page, numbers

PLAIN = {"algorithm": "plain_rl", "gamma": 0.0}
HUB = {"data": {"source": "hub"}, "model": {"source": "hub"}}
TRAINING = {"accuracy", "delta", "reward", "kl", "entropy", "grad_norm"}

VERSIONS = [("Python", "3.11")]


class Made:
    """A run of some models and stages, and what is reported on it."""

    def __init__(self, root, models, stages, **changes):
        write_run(root, problems=80, models=models, stages=stages)
        self.inputs, settings = read_inputs(*files(root, models, stages)), config(**changes)
        self.html = render_page(self.inputs, settings, VERSIONS)
        self.page = Page(self.html)
        for name in ("first", "retry"):
            prompt = root / "prompts" / "addition" / f"{name}.txt"
            prompt.parent.mkdir(parents=True, exist_ok=True)
            prompt.write_text("{problem}")
        self.card = render_card(self.inputs, settings, root)
        self.metrics = [json.loads((root / "metrics" / f"{name}.json").read_text()) for name in models]

    @property
    def figures(self):
        """The names of the page's figures."""
        return {found.split("-")[0] for found in re.findall(r'<g id="(\w+-figure_1)"', self.html)}

    @property
    def of_this_run(self):
        """The page's text without the papers' figures and the list of parameters."""
        before, _, rest = self.page.text.partition("Other models and other tasks")
        return before + rest.partition("How it was made")[2].partition("All parameters")[0]

    def check(self, labels, figures):
        """Every model's column under its label with its own numbers; the figures; nothing without a value."""
        page = self.page
        for table in ("results", "monitor-table", *(name for name in page.tables if name[:6] == "table ")):
            assert page.tables[table][0][1:] == labels
        (row,) = [row for row in page.tables["results"] if row[0].startswith("Accuracy, attempt 2")]
        expected = [100 * metrics["accuracy_t2"] for metrics in self.metrics]
        assert [numbers(cell)[0] for cell in row[1:]] == pytest.approx(expected, abs=0.0501)
        ours = page.tables["published-table"][2 : 2 + len(labels)]
        assert [row[0] for row in ours] == labels
        assert [numbers(row[2])[0] for row in ours] == pytest.approx(expected, abs=0.0501)
        assert self.figures == figures
        assert f"| {' | '.join(['', *labels])} |".strip("| ") in self.card
        for text in (page.text, self.card):
            assert not re.search(r"\b(undefined|None|nan|inf)\b", text)
        assert len(page.ids) == len(set(page.ids))
        assert not page.open
        for target in re.findall(r'(?:href="#|url\(#)([^")]+)', self.html):
            assert target in page.ids
        svg = "".join(re.findall(r"<svg.*?</svg>", self.html, flags=re.DOTALL))
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert set(re.findall(r"var\((--\w+)\)", svg)) <= set(re.findall(r"(--\w+):", page.styles))


def test_base_and_one_trained_model(tmp_path):
    made = Made(tmp_path, ("base", "rl"), ("rl",), stage1=None, stage2=None, rl=PLAIN, **HUB)
    made.check(["Base", "rl"], TRAINING | {"transitions2"})
    assert kept_at(made.inputs) == {"base": 0, "rl": 80}
    assert made.page.tables["paired"][0][1:3] == ["Only rl right", "Only base right"]
    assert made.page.tables["paired"][0][3] == f"rl {MINUS} base, points"
    assert "rl 80 steps" in made.page.text
    assert "the weights that were kept (rl step 80)" in made.page.text
    assert "rl rewards every attempt." in made.page.text
    assert "The base model went from" in made.page.text
    for text in (made.of_this_run, made.card):
        assert not re.search(r"Stage I|stage1|SCoRe|progress", text)
    assert "| parameter | rl |\n|---|---|\n| `algorithm` | plain_rl |" in made.card
    assert "arxiv" not in made.card


def test_evaluation_of_one_model(tmp_path):
    made = Made(tmp_path, ("candidate",), (), stage1=None, stage2=None)
    made.check(["candidate"], {"transitions2"})
    assert "paired" not in made.page.tables
    assert not {"training", "shows"} & set(made.page.ids)
    assert "the candidate model" in made.page.text
    assert not re.search(r"trained|Training|Stage I|SCoRe|base model went", made.of_this_run)
    assert "nothing was trained" in made.card
    assert "parameter |" not in made.card


def test_evaluation_of_two_models(tmp_path):
    made = Made(tmp_path, ("base", "tuned"), (), **HUB)
    made.check(["Base", "tuned"], {"transitions2"})
    assert made.page.tables["paired"][0][1] == "Only tuned right"
    assert "the tuned model" in made.page.text
    assert "the trained model" not in made.page.text


def test_one_model_with_its_training(tmp_path):
    made = Made(tmp_path, ("final",), ("stage2",))
    made.check(["Final"], TRAINING | {"transitions2"})
    assert kept_at(made.inputs) == {"final": 80}
    assert "Dotted" not in made.page.text
    assert "base-attempt1" not in made.html


def test_stage_that_knows_no_reward_and_no_kl(tmp_path):
    """What is there is drawn: of a supervised stage before Stage II, entropy and the gradient's norm."""
    models, stages = ("base", "warmup", "final"), ("warmup", "stage2")
    write_run(tmp_path, problems=80, models=models, stages=stages)
    for stage in stages:
        path = tmp_path / "metrics" / f"train_{stage}_curve.csv"
        curve = pd.read_csv(path)
        gone = "^(kl|reward)" if stage == "warmup" else "^kl"
        curve.drop(columns=curve.filter(regex=gone)).to_csv(path, index=False)
    inputs = read_inputs(*files(tmp_path, models, stages))
    html = render_page(inputs, config(warmup=PLAIN, **HUB), VERSIONS)
    drawn = set(re.findall(r'<g id="(\w+)-figure_1"', html))
    assert drawn == TRAINING - {"kl"} | {"transitions2"}
    assert not Page(html).open


def test_four_models_and_three_stages(tmp_path):
    models, stages = ("base", "warmup", "control", "final"), ("warmup", "stage1", "stage2")
    made = Made(tmp_path, models, stages, warmup=PLAIN)
    made.check(["Base", "warmup", "control", "Final"], TRAINING | {"transitions2"})
    assert {f"var(--model{at})" in made.html for at in range(1, 5)} == {True}
    # The control is of none of these stages, so it has no place among them.
    assert kept_at(made.inputs) == {"base": 0, "warmup": 80, "final": 240}
    assert "Circles: Base, warmup, Final there" in made.page.text
    assert "warmup 80 steps, Stage I 80 steps, Stage II 80 steps" in made.page.text
    assert "| parameter | warmup | Stage I | Stage II |" in made.card
    assert "| `gamma` | 0.0 | – | 0.0 |" in made.card  # noqa: RUF001


def test_stage_that_the_parameters_lack_is_named(tmp_path):
    with pytest.raises(UserError, match="stage3"):
        Made(tmp_path, ("base", "stage3"), ("stage3",))


def test_names_are_only_text(tmp_path):
    name = "a$b$ & <i>"
    made = Made(tmp_path, ("base", name), ("stage2",))
    made.check(["Base", name], TRAINING | {"transitions2"})
    assert "i" not in {tag for tag, _ in made.page.tags}
