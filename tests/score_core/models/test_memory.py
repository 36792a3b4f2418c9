"""What fits: sizes for GPUs that exist, and a refusal with the sums where nothing does."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config

from score_core.errors import UserError
from score_core.models.memory import CPU_ROWS, CPU_TOKENS, READ, Shape, fit_batches, weight_bytes
from tests.configs import config, runtime

CHUNK = 2**26
# Qwen2.5's: 1.5 and 7 billion numbers.
SMALL = Shape(1_543_714_304, 28, 1536, 8960, 151_936, 2 * 2 * 128, 2, True, 2 * 12 * 128)
LARGE = Shape(7_615_616_512, 28, 3584, 18_944, 152_064, 2 * 4 * 128, 2, repeated=2 * 28 * 128)
LORA = {"rank": 16, "alpha": 32, "targets": "all-linear"}
LONGEST = 512 + 2 * 512 + 30  # the README's example


def launch(**settings):
    return runtime(launch={"processes": 1, "strategy": "single", **settings}).launch


def test_a_shape_is_read_from_a_folder_without_its_weights(tmp_path):
    settings = Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model-1.safetensors")
    save_file({"c": torch.zeros(11)}, tmp_path / "model-2.safetensors")
    shape = Shape.of(tmp_path, settings, "bfloat16")
    assert shape == Shape(15 + 7 + 11, 3, 32, 48, 50, 2 * 2 * 8, 2, settings.tie_word_embeddings, 2 * 4 * 8)
    assert shape.token_cached == 3 * 2 * 2 * 8 * 2
    assert shape.row_read(1, 1000) == 4 * 8 * 32 + 1000 * 2 * 4 * 8 * 2
    settings.num_key_value_heads = 4
    assert Shape.of(tmp_path, settings, "bfloat16").repeated == 0, "each head has its own"


@pytest.mark.parametrize("room", [24e9, 40e9, 80e9])
def test_the_example_of_the_readme_fits_usual_gpus(room):
    lora = config(lora=LORA).lora
    held = weight_bytes(SMALL, lora, False, launch())
    sizes = fit_batches(SMALL, held, LONGEST, int(room), CHUNK)
    assert sizes.tokens >= LONGEST and sizes.rows >= 64
    assert held[0] + SMALL.scoring(sizes.tokens, CHUNK, False) <= 0.9 * room
    rows = sizes.rows * (LONGEST * SMALL.token_cached + SMALL.row_logits)
    assert held[0] + READ + rows <= 0.9 * room
    # Prompts by what the MLP makes of them; an instruction after a long dialogue by what attention copies.
    assert SMALL.rows_read(512, 512) == READ // (512 * 4 * (8 * 1536 + 3 * 8960))
    assert SMALL.rows_read(20, LONGEST) == READ // (20 * 4 * 8 * 1536 + LONGEST * 2 * 1536 * 2)


def test_more_room_and_recomputing_make_larger_batches():
    held = weight_bytes(SMALL, config(lora=LORA).lora, False, launch())
    small, large = (fit_batches(SMALL, held, LONGEST, int(room), CHUNK) for room in (24e9, 80e9))
    recomputed = fit_batches(SMALL, held, LONGEST, int(24e9), CHUNK, checkpointing=True)
    assert small.tokens < large.tokens and small.tokens < recomputed.tokens
    assert small.rows < large.rows and small.rows == recomputed.rows


def test_whole_models_are_split_to_fit_or_refused_with_the_sums():
    alone = weight_bytes(LARGE, None, False, launch())
    assert alone[0] / LARGE.parameters == pytest.approx(16 + 2 + 2)
    with pytest.raises(UserError) as caught:
        fit_batches(LARGE, alone, LONGEST, int(80e9), CHUNK)
    said = str(caught.value)
    assert "of 80.0 GB weights, gradients and optimiser hold 152.3" in said
    assert all(word in said for word in ("gradient_checkpointing", "max_new_tokens", "lora", "zero3"))
    split = weight_bytes(LARGE, None, False, launch(strategy="zero3", processes=8))
    live = 1e9 * 2 * 7 / 8  # what ZeRO-3 keeps gathered while it trains, a part of all while sampling
    assert split[0] == pytest.approx(alone[0] / 8 + live)
    assert split[1] + live == pytest.approx(LARGE.parameters * 2 * 7 / 8)
    assert fit_batches(LARGE, split, LONGEST, int(80e9), CHUNK, checkpointing=True).tokens >= LONGEST
    layer_wise = weight_bytes(LARGE, None, False, launch(strategy="fsdp2", processes=8))
    output_layers = 2 * 152_064 * 3584 * 2  # the policy's and the reference's, in bf16
    assert layer_wise[0] - split[0] + live == pytest.approx(output_layers * 7 / 8, rel=0.001)


def test_embedding_and_output_layer_are_not_packed():
    lora = config(lora=LORA).lora
    for shape, ends in ((SMALL, 151_936 * 1536), (LARGE, 2 * 152_064 * 3584)):
        packed, plain = (weight_bytes(shape, lora, packed, launch())[0] for packed in (True, False))
        saved = (2 - 0.52) * (shape.parameters - ends)  # 4 bits, and a scale for every 64 numbers
        assert plain - packed == pytest.approx(saved, rel=0.001)


def test_on_a_cpu_sizes_do_not_depend_on_memory():
    held = weight_bytes(LARGE, None, False, launch())
    sizes = fit_batches(LARGE, held, LONGEST, None, CHUNK)
    assert (sizes.tokens, sizes.rows) == (CPU_TOKENS, CPU_ROWS)
