"""Model folders: checks, loading, end tokens, adapters, and the tiny model of each family."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, MistralConfig

from score_core.embedded import tiny_model
from score_core.errors import UserError
from score_core.models.folders import (
    check_model,
    context_limit,
    copy_local_model,
    end_token_ids,
    load_configs,
    load_model,
    load_tokenizer,
    save_model,
)

FAMILIES = ("qwen2", "qwen3", "llama")
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2+2? \u00e9\u4e16"},
    {"role": "assistant", "content": "<think>easy</think>\n4"},
    {"role": "user", "content": "check your answer"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        tiny_model.build(family, 3, folder)
    return folders


@pytest.fixture
def folder(folders, tmp_path):
    shutil.copytree(folders["qwen2"], tmp_path / "model")
    return tmp_path / "model"


def refused(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_model_of_each_family_loads_and_computes(folders, family):
    tokenizer, model = load_tokenizer(folders[family]), load_model(folders[family])
    assert model.config.model_type == family
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert model.dtype == torch.float32 and not model.training
    assert len(tokenizer) == model.config.vocab_size
    ids = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    logits = model(torch.tensor([ids])).logits
    assert logits.shape == (1, len(ids), len(tokenizer)) and torch.isfinite(logits).all()
    assert {file.suffix for file in folders[family].iterdir()} <= {".json", ".safetensors", ".jinja"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chat_template_renders_two_turns_that_survive_the_tokenizer(folders, family):
    tokenizer = load_tokenizer(folders[family])
    text = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == text
    assert text.index("Be brief.") < text.index("2+2? \u00e9\u4e16") < text.index("check your answer")
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>" if family == "llama" else "<|im_end|>")
    assert ids.count(end) == len(TURNS)
    assert text.endswith("assistant\n" if family != "llama" else "assistant<|end_header_id|>\n\n")
    if family == "qwen3":
        assert "easy" not in text  # thoughts of earlier answers are dropped, as the family does
        quiet = tokenizer.apply_chat_template(
            TURNS, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        assert quiet == text + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_are_one_id_and_every_byte_has_one(folders, family):
    tokenizer = load_tokenizer(folders[family])
    text = "".join(chr(c) for c in range(32, 300)) + "\n\t\U0001f600 a  b\n\n"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer.encode(text, add_special_tokens=False)) == len(text.encode())
    assert len(tokenizer.encode(tokenizer.eos_token, add_special_tokens=False)) == 1


def test_the_same_seed_builds_the_same_files(folders, tmp_path):
    state = torch.random.get_rng_state()
    tiny_model.build("qwen3", 3, tmp_path / "again")
    tiny_model.build("qwen3", 4, tmp_path / "other")
    assert torch.equal(state, torch.random.get_rng_state())
    for file in folders["qwen3"].iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    weights = "model.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() != (tmp_path / "again" / weights).read_bytes()


def test_end_tokens_come_from_tokenizer_and_generation_config(folders):
    for family, names in (
        ("qwen2", ["<|im_end|>", "<|endoftext|>"]),
        ("llama", ["<|eot_id|>", "<|end_of_text|>"]),
    ):
        tokenizer, model = load_tokenizer(folders[family]), load_model(folders[family])
        expected = tuple(sorted(tokenizer.convert_tokens_to_ids(names)))
        assert end_token_ids(tokenizer, model.generation_config) == expected
        assert end_token_ids(tokenizer) == (tokenizer.eos_token_id,)
        model.generation_config.eos_token_id = expected[0]
        assert set(end_token_ids(tokenizer, model.generation_config)) == {expected[0], tokenizer.eos_token_id}
        tokenizer.eos_token = None
        model.generation_config.eos_token_id = None
        assert "no end token" in refused(end_token_ids, tokenizer, model.generation_config)


def test_padding_may_equal_an_end_token_or_be_unset(folders, tmp_path):
    llama = load_tokenizer(folders["llama"])
    assert llama.pad_token_id == llama.eos_token_id and llama.padding_side == "left"
    shutil.copytree(folders["llama"], tmp_path / "unpadded")
    path = tmp_path / "unpadded" / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    assert AutoTokenizer.from_pretrained(path.parent).pad_token_id is None
    tokenizer = load_tokenizer(path.parent)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    batch = tokenizer(["a", "abc"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1]]


def test_saving_and_loading_gives_the_same_model(folder, tmp_path):
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    save_model(model, tokenizer, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert load_tokenizer(tmp_path / "saved").chat_template == tokenizer.chat_template
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16


def test_an_adapter_folder_loads_over_its_base(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load_model(folder), LoraConfig(r=2, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    save_model(adapted, load_tokenizer(folder), tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    expected = adapted.eval()(ids).logits
    assert not torch.allclose(expected, load_model(folder)(ids).logits)
    assert torch.equal(load_model(tmp_path / "adapter")(ids).logits, expected)
    moved = folder.rename(tmp_path / "moved")
    assert torch.equal(load_model(tmp_path / "adapter", base=moved)(ids).logits, expected)
    assert "is not a folder here" in refused(load_model, tmp_path / "adapter")
    assert "PEFT adapter" in refused(copy_local_model, tmp_path / "adapter", tmp_path / "copy")


def test_copying_leaves_out_what_is_no_part_of_a_model(folder, tmp_path):
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    copy_local_model(folder, tmp_path / "copy")
    names = {file.name for file in (tmp_path / "copy").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"training_args.bin", "optimizer.pt"}
    load_model(tmp_path / "copy")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "config.json is missing, found"),
        ("model.safetensors", "no *.safetensors"),
        ("tokenizer.json", "no tokenizer, found"),
    ],
)
def test_an_incomplete_folder_is_refused(folder, missing, words):
    (folder / missing).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    for call in (check_model, load_model, load_tokenizer):
        message = refused(call, folder)
        assert message.startswith(f"{folder}: ") and words in message


def test_a_missing_folder_a_missing_template_and_a_missing_shard_are_refused(folder):
    assert "no such folder" in refused(load_model, folder / "none")
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in refused(load_tokenizer, folder)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors is missing" in refused(load_model, folder)


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"model_type": "unknown"}, {"num_hidden_layers": 3}])
def test_weights_that_do_not_fit_the_configuration_are_refused(folder, change):
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **change}
    content.pop("layer_types", None)
    path.write_text(json.dumps(content))
    assert refused(load_model, folder).startswith(f"{folder}: ")


@pytest.mark.parametrize(
    ("file", "call"), [("model.safetensors", load_model), ("tokenizer.json", load_tokenizer)]
)
def test_broken_files_are_refused(folder, file, call):
    (folder / file).write_text("{broken")
    assert "transformers cannot load" in refused(call, folder)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "[1]"),
        ("config.json", '{"model_type": ["qwen2"]}'),
        ("generation_config.json", "3"),
        ("model.safetensors.index.json", "{}"),
        ("model.safetensors.index.json", '{"weight_map": [1]}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": ["b"]}}'),
    ],
)
def test_json_that_says_something_else_is_refused(folder, file, text):
    (folder / file).write_text(text)
    assert refused(load_configs, folder).startswith(f"{folder}")


@pytest.mark.parametrize("change", [{"peft_type": "LORAX"}, {"target_modules": ["nothing"]}, {"r": "many"}])
def test_an_adapter_of_another_kind_is_refused(folder, tmp_path, change):
    from peft import LoraConfig, get_peft_model

    adapter = tmp_path / "adapter"
    model = get_peft_model(load_model(folder), LoraConfig(r=2, target_modules="all-linear"))
    save_model(model, load_tokenizer(folder), adapter)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert refused(load_model, adapter).startswith(f"{adapter}: transformers cannot load the adapter (")


def test_context_ends_where_attention_does():
    limits = {
        None: MistralConfig(max_position_embeddings=4096, sliding_window=None),
        1024: MistralConfig(max_position_embeddings=4096, sliding_window=1024),
    }
    for window, config in limits.items():
        assert context_limit(config) == (window or 4096)
    assert context_limit(LlamaConfig(max_position_embeddings=77)) == 77
