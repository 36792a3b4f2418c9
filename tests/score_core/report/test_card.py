"""The model card: front matter that a hub can read, and the numbers of the metrics files."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from score_core.embedded import tiny_model
from score_core.errors import UserError
from score_core.report.card import render_card
from score_core.report.inputs import read_inputs
from score_core.report.wording import NONE
from tests.run_files import config, files, write_run
from tests.score_core.report.reading_html import numbers

HUB_MODEL = {"source": "hub", "path": "Qwen/Qwen3-0.6B", "revision": "main", "family": "qwen3"}
HUB_DATA = {"source": "hub", "path": "openai/gsm8k", "name": "main", "fixture": "data/fixtures/gsm8k"}
LORA = {"rank": 8, "alpha": 16, "targets": "all-linear"}


@pytest.fixture
def root(tmp_path):
    write_run(tmp_path, problems=50)
    prompts = tmp_path / "prompts" / "addition"
    prompts.mkdir(parents=True)
    (prompts / "first.txt").write_text('{problem} "quoted"\nsecond line\n')
    (prompts / "retry.txt").write_text("check your answer\n")
    return tmp_path


def card_of(root, **changes):
    text = render_card(read_inputs(*files(root)), config(**changes), root)
    _, matter, body = text.split("---\n", 2)
    return yaml.safe_load(matter), body


def test_front_matter_is_yaml_with_the_final_metrics(root):
    matter, _ = card_of(root, report={"title": "Odd: title # with 'signs'"})
    metrics = json.loads((root / "metrics" / "final.json").read_text())
    (result,) = matter["model-index"][0]["results"]
    assert matter["model-index"][0]["name"] == "Odd: title # with 'signs'"
    assert {entry["type"]: entry["value"] for entry in result["metrics"]} == {
        key: metrics[key] for key in ("accuracy_t1", "accuracy_t2", "delta", "delta_i_to_c", "delta_c_to_i")
    }
    assert matter["library_name"] == "transformers"
    assert "base_model" not in matter


def test_what_sampled_is_named(root):
    _, body = card_of(root)
    assert "Sampling engine: builtin. Reproducible to the bit: yes," in body


def test_hub_names_and_adapters_are_declared(root):
    matter, body = card_of(root, model=HUB_MODEL, data=HUB_DATA, lora=LORA)
    assert matter["base_model"] == "Qwen/Qwen3-0.6B"
    assert matter["datasets"] == ["openai/gsm8k"]
    assert matter["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in body


def test_smoke_run_names_what_it_took_instead(root):
    matter, body = card_of(root, model=HUB_MODEL, data=HUB_DATA, smoke=True)
    assert not {"base_model", "datasets"} & set(matter)
    assert "tiny qwen3 with random weights, in place of Qwen/Qwen3-0.6B" in body
    assert "local data data/fixtures/gsm8k, in place of openai/gsm8k" in body


def test_training_table_has_a_column_for_each_stage(root):
    _, body = card_of(root)
    rows = {
        row[0]: row[1:]
        for row in ([c.strip() for c in line.split("|")[1:-1]] for line in body.splitlines())
        if row
    }
    assert rows["parameter"] == ["Stage I", "Stage II"]
    assert rows["`algorithm`"] == ["score_stage1", "score_stage2"]
    assert rows["`beta2`"] == ["0.1", NONE]
    assert rows["`alpha`"] == [NONE, "3.0"]


def test_table_is_that_of_the_metrics(root):
    _, body = card_of(root)
    (row,) = [line for line in body.splitlines() if line.startswith("| Accuracy, attempt 2")]
    shown = [numbers(cell)[0] for cell in row.split("|")[2:-1]]
    expected = [
        100 * json.loads((root / "metrics" / f"{name}.json").read_text())["accuracy_t2"]
        for name in ("base", "stage1", "final")
    ]
    assert shown == pytest.approx(expected, abs=0.0501)


def code_of(root, **changes):
    _, body = card_of(root, **changes)
    (code,) = [part.split("```")[0] for part in body.split("```python\n")[1:]]
    return code


def test_code_on_the_card_is_python(root):
    code = code_of(root)
    compile(code, "card", "exec")
    assert repr('{problem} "quoted"\nsecond line') in code


@torch.no_grad()
def most_likely(folder, said, tokens):
    """A model's replies in one dialogue, each token the most likely one."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat, replies = [], []
    for text in said:
        chat.append({"role": "user", "content": text})
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = list(asked)
        while len(ids) < len(asked) + tokens and ids[-1] not in model.generation_config.eos_token_id:
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
        replies.append(tokenizer.decode(ids[len(asked) :], skip_special_tokens=True))
        chat.append({"role": "assistant", "content": replies[-1]})
    return replies


# So cold that sampling takes the most likely token, too.
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1e-6, "top_p": 0.9}])
def test_code_on_the_card_answers_as_evaluation_does(root, tmp_path, monkeypatch, sampling):
    folder = tmp_path / "export"
    tiny_model.build("qwen2", 1, folder)
    monkeypatch.chdir(folder)
    said = '…your problem… "quoted"\nsecond line', "check your answer"
    expected = most_likely(folder, said, 12)
    settings = json.loads(Path("generation_config.json").read_text())
    odd = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 2.0, "top_k": 7}
    Path("generation_config.json").write_text(json.dumps({**settings, **odd}))
    printed = []
    code = code_of(root, evaluation={"max_new_tokens": 12, **sampling})
    exec(code, {"print": printed.append})
    assert printed == expected
    assert ("top_k=0," in code) == bool(sampling)


def test_missing_prompt_is_named(root):
    Path(root / "prompts" / "addition" / "retry.txt").unlink()
    with pytest.raises(UserError, match=r"retry\.txt: not found; conversation\.retry"):
        card_of(root)


def test_a_prompt_that_is_no_text_is_named(root):
    Path(root / "prompts" / "addition" / "retry.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"retry\.txt: cannot be read as UTF-8 text"):
        card_of(root)


def test_card_tells_what_training_said_of_collapse(root):
    assert "signs of collapse" not in card_of(root)[1]
    summary = root / "metrics" / "train_stage2.json"
    told = [{"said": "Since step 31: attempt 2 only copies."}, {"said": "Since step 40: more."}]
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"warnings": told}))
    assert "> **Stage II showed signs of collapse.** Since step 31: attempt" in card_of(root)[1]


def test_card_warns_when_stage_one_has_not_taken_off(tmp_path, root):
    summary = root / "metrics" / "train_stage1.json"
    summary.write_text(summary.read_text().replace("true", "false"))
    assert "has not taken off" in card_of(root)[1]
