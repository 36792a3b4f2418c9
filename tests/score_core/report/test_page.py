"""The page, as a parser reads it, against the files it was made from."""

import json
import re

import pandas as pd
import pytest

from score_core.evaluation.budgets import budgets
from score_core.evaluation.metrics import summarise
from score_core.report.inputs import read_inputs
from score_core.report.page import render_page
from score_core.report.samples import choose_samples
from tests.run_files import MODELS, SAMPLED_BY, config, files, make_rows, write_evaluation, write_run
from tests.score_core.report.reading_html import Page, numbers

VERSIONS = [("Python", "3.11"), ("torch", "2")]


def render(root, **changes):
    return render_page(read_inputs(*files(root)), config(**changes), VERSIONS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_run(root)
    return root


@pytest.fixture(scope="module")
def html(root):
    return render(root)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def metrics_of(root):
    return [json.loads((root / "metrics" / f"{name}.json").read_text()) for name in MODELS]


def cells(page, table, heading):
    """The numbers of the row that begins with `heading`, cell by cell."""
    (row,) = [row for row in page.tables[table] if row and row[0].startswith(heading)]
    return [numbers(cell) for cell in row[1:]]


def test_what_a_self_judges_verdicts_are_worth_is_drawn_where_there_are_any(html, tmp_path):
    assert "The judge beside the verifier" not in html
    write_run(tmp_path)
    path = tmp_path / "metrics" / "train_stage1_curve.csv"
    curve = pd.read_csv(path)
    curve["judge_agreement_t1"] = [None, *[0.5] * (len(curve) - 1)]  # no such pair in the first step
    curve.assign(judge_unread_t1=0.25).to_csv(path, index=False)
    said = render(tmp_path)
    assert "The judge beside the verifier" in said and "Verdicts that cannot be read" in said
    assert "Verdicts by place alone" not in said


def test_a_mean_reward_stands_beside_the_published_ones_where_it_is_no_accuracy(page, tmp_path):
    ours = [row[0] for row in page.tables["published-table"] if row[0].startswith("This run")]
    assert len(ours) == 1 and "accuracy by the verifier, greedy decoding" in ours[0]
    write_run(tmp_path)
    for number, name in enumerate(MODELS):
        path, table = tmp_path / "metrics" / f"{name}.json", tmp_path / "generations" / f"{name}.parquet"
        rewards = {"reward_t1": 0.25 + number / 8, "reward_t2": 0.5 + number / 8}
        path.write_text(json.dumps(json.loads(path.read_text()) | rewards))
        pd.read_parquet(table).assign(**rewards).to_parquet(table)
    rows = Page(render(tmp_path)).tables["published-table"]
    (start,) = [at for at, row in enumerate(rows) if "mean reward of training" in row[0]]
    shown = [[numbers(cell) for cell in row[1:4]] for row in rows[start + 1 : start + 1 + len(MODELS)]]
    assert shown == [[[25 + 12.5 * n], [50 + 12.5 * n], [25]] for n in range(len(MODELS))]


def test_repaired_programs_are_a_row_where_they_were_measured(page, tmp_path):
    heading = "Repaired programs (MBPP-R)"
    assert not [row for row in page.tables["monitor-table"] if row and row[0].startswith("Tests passed")]
    assert heading not in [row[0] for row in page.tables["results"] if row]
    write_run(tmp_path)
    for number, name in enumerate(MODELS):
        path = tmp_path / "metrics" / f"{name}.json"
        metrics = json.loads(path.read_text()) | {"repair_n": 90, "repair_accuracy": 0.25 + number / 10}
        metrics["ci95"]["repair_accuracy"] = [0.125, 0.875]
        metrics |= {"tests_passed_t1": 0.5, "tests_passed_t2": 0.5 + number / 10}
        path.write_text(json.dumps(metrics))
    shown = cells(Page(render(tmp_path)), "results", heading)
    assert [cell[0] for cell in shown] == [25.0, 35.0, 45.0]
    assert all(cell[1:3] == [12.5, 87.5] for cell in shown)
    passed = cells(Page(render(tmp_path)), "monitor-table", "Tests passed at attempt 2")
    assert passed == [[50.0], [60.0], [70.0]]


@pytest.mark.parametrize(
    ("heading", "key"),
    [
        ("Accuracy, attempt 1", "accuracy_t1"),
        ("Accuracy, attempt 2", "accuracy_t2"),
        ("Δ", "delta"),
        ("Wrong → right", "delta_i_to_c"),
        ("Right → wrong", "delta_c_to_i"),
    ],
)
def test_result_table_holds_the_metrics_and_their_intervals(page, root, heading, key):
    shown = cells(page, "results", heading)
    for cell, metrics in zip(shown, metrics_of(root), strict=True):
        expected = [100 * value for value in (metrics[key], *metrics["ci95"][key])]
        # Cells are joined texts: 47.0 [44.9, 49.2]. Rounding to a decimal is off by 0.05 at most.
        assert cell == pytest.approx(expected, abs=0.0501)


def test_monitors_are_those_of_the_files(page, root):
    for heading, key, scale, digits in (
        ("Answers changed at attempt 2", "changed_t2", 100, 0.0501),
        ("Edit distance from attempt 1", "edit_distance_ratio_t2", 1, 0.000501),
        ("Mean length of attempt 2", "length_t2", 1, 0.0501),
        ("Mean training reward of attempt 1", "reward_t1", 1, 0.000501),
    ):
        shown = [cell[0] for cell in cells(page, "monitor-table", heading)]
        assert shown == pytest.approx([scale * metrics[key] for metrics in metrics_of(root)], abs=digits)


def test_models_are_compared_problem_by_problem(page, root):
    base, final = (pd.read_parquet(root / "generations" / f"{name}.parquet") for name in ("base", "final"))
    for t in (1, 2):
        right = dict(zip(base["id"], base[f"correct_t{t}"], strict=True))
        pairs = [(right[name], now) for name, now in zip(final["id"], final[f"correct_t{t}"], strict=True)]
        gained, lost = pairs.count((False, True)), pairs.count((True, False))
        shown = cells(page, "paired", f"Attempt {t}")
        assert (shown[0], shown[1]) == ([gained], [lost])
        assert shown[2][0] == pytest.approx(100 * (gained - lost) / len(pairs), abs=0.0501)
    assert "p < 0.001" in page.tables["paired"][-1][-1]


def test_headline_tells_the_result(page, root):
    base, _, final = metrics_of(root)
    (headline,) = re.findall(r"On [\d,]+ held-out problems.*?points\.(?= |\n|$)", page.text)
    values = numbers(headline.replace("95 %", ""))
    expected = [300, 1, 100 * final["accuracy_t1"], 2, 100 * final["accuracy_t2"]]
    assert "gains" in headline
    assert {round(100 * base["accuracy_t1"], 1), round(100 * final["delta"], 1)} <= set(values)
    for value in expected:
        assert any(value == pytest.approx(shown, abs=0.0501) for shown in values)


def test_transitions_count_every_problem_once(page, root):
    (table,) = [name for name in page.tables if name.startswith("table ")]
    for column, name in enumerate(MODELS, start=1):
        rows = {row[0]: numbers(row[column])[0] for row in page.tables[table] if len(row) > 1 and row[0]}
        frame = pd.read_parquet(root / "generations" / f"{name}.parquet")
        assert rows["wrong → right"] == (~frame.correct_t1 & frame.correct_t2).sum()
        assert rows["right → right"] == (frame.correct_t1 & frame.correct_t2).sum()
        assert sum(rows.values()) == len(frame)


def test_samples_are_of_their_kind_and_limited(page, root):
    """Each kind of the final model shows at most `report.samples`, and the page says how many there are."""
    final = pd.read_parquet(root / "generations" / "final.parquet")
    corrected = (~final.correct_t1 & final.correct_t2).sum()
    assert f"3 of {corrected}" in page.text
    shown = final[[text in page.text for text in final["problem"]]]
    assert 0 < len(shown) <= 4 * 3
    assert (~shown.correct_t1 & shown.correct_t2).sum() == 3


def test_base_lines_are_dotted(html):
    for name in ("accuracy-base-attempt1", "accuracy-base-attempt2", "delta-base-delta"):
        group = html[html.index(f'id="{name}"') :]
        assert "stroke-dasharray" in group[: group.index("</g>")]


def test_page_needs_nothing_from_elsewhere(html, page):
    loading = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "source", "base"}
    assert not loading & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "srcset", "xlink:href", "data", "poster") or (name == "href" and tag != "a"):
                assert value.startswith("#"), (tag, name, value)
    assert not re.search(r"@import|url\((?!#)", html)
    # The one address on the page is a link that a reader may follow.
    assert set(re.findall(r"https?://[^\s\"<]+", html)) == {"https://arxiv.org/abs/2409.12917"}


def test_ids_are_unique_and_references_resolve(html, page):
    assert len(page.ids) == len(set(page.ids))
    assert not page.open
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert target in page.ids


def test_every_colour_follows_the_reader(html, page):
    """Figures name colours only through variables that both modes define."""
    svg = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    light, dark = (
        set(re.findall(r"(--[\w]+):", part)) for part in page.styles.split("prefers-color-scheme")[:2]
    )
    assert set(re.findall(r"var\((--\w+)\)", svg)) <= light
    assert set(re.findall(r"var\((--[\w-]+)\)", page.styles)) <= {
        *re.findall(r"(--[\w-]+):", page.styles.split("prefers-color-scheme")[1])
    }
    assert dark


def test_hostile_text_is_only_text(tmp_path):
    write_run(tmp_path, problems=40)
    hostile = (
        '<script>alert(1)</script></pre><img src="http://evil.example/x.png" onerror="a()">{{ 7*7 }}\x1b[2J'
    )
    rows = make_rows("final", MODELS["final"], 40, 2)
    for row in rows:
        row["problem"] = row["text_t1"] = row["text_t2"] = row["answer"] = row["extracted_t2"] = hostile
    write_evaluation(tmp_path, "final", rows)
    page = Page(render(tmp_path, report={"title": hostile.replace("\x1b", ""), "samples": 3}))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in page.text


def test_equal_inputs_give_equal_bytes(root, html):
    assert render(root) == html


def test_machine_settings_of_matplotlib_do_not_count(root, html):
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "figure.dpi": 30}):
        assert render(root) == html


def test_warns_when_stage_one_has_not_taken_off(tmp_path, page):
    write_run(tmp_path, problems=40, took_off=False)
    warned = Page(render(tmp_path))
    assert "not-taken-off-stage1" in warned.ids
    assert "Stage II then started from a model that had not learned" in warned.text
    assert "not taken off" not in page.text


def test_shows_what_training_said_of_collapse(tmp_path, page):
    write_run(tmp_path, problems=40)
    summary = tmp_path / "metrics" / "train_stage2.json"
    told = {"sign": "copying", "since": 31, "said": "Since step 31: attempt 2 <only> copies."}
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"warnings": [told]}))
    warned = Page(render(tmp_path))
    assert "warnings-stage2" in warned.ids and "warnings-stage1" not in warned.ids
    assert "Since step 31: attempt 2 <only> copies." in warned.text
    assert "signs of collapse" not in page.text


def test_says_so_when_it_is_a_smoke_run(root, page):
    assert "smoke run" in Page(render(root, smoke=True)).text
    assert "smoke run" not in page.text


def test_only_the_embedded_default_explains_itself(root, page):
    other = Page(render(root, model={"source": "local", "path": "somewhere"}))
    assert "shows" in page.ids
    assert "fix your answer" in page.text
    assert "shows" not in other.ids


def test_no_success_is_claimed_without_one(tmp_path):
    write_run(tmp_path, problems=60)
    write_evaluation(tmp_path, "final", make_rows("final", (0.5, 0.0, 0.0), 60, 2))
    text = Page(render(tmp_path)).text
    assert "no clear gain or loss" in text
    assert "Rewards alone" not in text


def test_all_parameters_and_libraries_are_named(page):
    flat = {row[0]: row[1] for row in page.tables["parameters"] if len(row) == 2}
    assert flat["alpha"] == "3.0"
    assert flat["sizes.test"] == "200"
    assert flat["seed"] == "7"
    assert ["Versions", "Python 3.11, torch 2"] in page.tables["versions"]


def test_what_sampled_is_named_and_whether_it_would_give_the_same_bits(tmp_path, page):
    versions = dict(page.tables["versions"])
    assert versions["Sampling engine"] == "builtin"
    assert versions["Reproducible to the bit"].startswith("yes, by one process")
    write_run(tmp_path, problems=60)
    path = tmp_path / "metrics" / "train_stage2.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": "vllm", "reproducible": False}))
    versions = dict(Page(render(tmp_path)).tables["versions"])
    assert versions["Sampling engine"].startswith("Stage I: builtin, Stage II: vllm, evaluation of Base: ")
    assert versions["Reproducible to the bit"].startswith("no")


def test_three_attempts(tmp_path):
    write_run(tmp_path, problems=60, attempts=3)
    page = Page(render(tmp_path))
    metrics = metrics_of(tmp_path)
    for heading, key in (("Accuracy, attempt 3", "accuracy_t3"), ("Δ, attempt 3", "delta_t3")):
        shown = [cell[0] for cell in cells(page, "results", heading)]
        assert shown == pytest.approx([100 * of[key] for of in metrics], abs=0.0501)
    assert "accuracy-base-attempt3" in page.ids
    assert "From attempt 1 to attempt 3" in page.text
    assert len(page.ids) == len(set(page.ids))


def test_several_samples_and_labels_are_told(tmp_path):
    write_run(tmp_path, problems=60)
    found = {}
    for name in MODELS:
        table = tmp_path / "generations" / f"{name}.parquet"
        rows = pd.concat([pd.read_parquet(table).assign(sample=k) for k in (1, 2)], ignore_index=True)
        rows["correct_t1"] ^= rows["sample"] == 2
        rows["by_level"] = [str(number % 3) for number in range(60)] * 2
        rows.to_parquet(table)
        found[name] = summarise(rows) | {"budgets": budgets(rows)} | SAMPLED_BY
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps(found[name]))
    page = Page(render(tmp_path, evaluation={"temperature": 0.7, "samples": 2}))
    assert "sampling at temperature 0.7, mean of 2 samples a problem" in page.text
    assert "Normal test" in page.tables["paired"][0] and "McNemar" not in page.text
    assert "they count problems, not samples, as independent" in page.text
    assert "The same in numbers: answers, 2 a problem, and their share" in page.text
    assert "More answers at test time" in page.text and "votes-axes_1" in page.ids
    for value, row in zip("012", page.tables["by-1"][1:], strict=True):
        assert row[:2] == [value, "20"]
        for name, cell in zip(MODELS, row[2:], strict=True):
            level = found[name]["by"]["level"][value]
            assert numbers(cell) == pytest.approx(
                [100 * level["accuracy_t1"], 100 * level["accuracy_t2"]], abs=0.0501
            )
    # Of a problem's dialogues one is shown and counted.
    assert (
        sum(kind.total for kind in choose_samples(read_inputs(*files(tmp_path)).final.generations, 2, 1))
        == 60
    )
