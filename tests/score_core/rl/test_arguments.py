"""What transformers' Trainer is told; and sizes that leave room for all that a GPU holds."""

from importlib.util import find_spec

import pytest
import torch

from score_core.distributed import init_processes
from score_core.embedded import tiny_model
from score_core.errors import UserError
from score_core.models.weights import count_parameters
from score_core.rl.arguments import batch_sizes, training_arguments
from tests.configs import runtime
from tests.small_run import small_config


@pytest.mark.parametrize("tracker", ["none", "tensorboard"])
def test_logging_needs_no_network_and_no_tracker_that_nobody_chose(tracker, tmp_path):
    if tracker != "none" and find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    config = small_config()
    how = runtime(threads=1, tracker=tracker)
    told = training_arguments(config, how, config.stage("stage1"), tmp_path, "stage1", 1)
    assert told.report_to == ([] if tracker == "none" else [tracker])
    assert not told.push_to_hub


def test_processes_wait_as_long_for_each_other_in_evaluation_as_in_training(tmp_path, monkeypatch):
    joined = {}
    monkeypatch.setattr("score_core.distributed.PartialState", lambda **settings: joined.update(settings))
    init_processes()
    config = small_config()
    told = training_arguments(config, runtime(), config.stage("stage1"), tmp_path, "stage1", 1)
    assert joined["timeout"] == told.ddp_timeout_delta


def test_every_model_on_a_gpu_takes_its_room(tmp_path, monkeypatch):
    """A judge, the model training started from, a server: each leaves less, by what it holds."""
    for name in ("base", "judge"):
        tiny_model.build("qwen2", 7, tmp_path / name)
    weights = 4 * count_parameters(tmp_path / "judge")

    class Gpu:
        total_memory = 20 * weights

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Gpu)
    monkeypatch.setattr("score_core.rl.arguments.CHUNK", 1000)
    monkeypatch.setattr("score_core.models.memory.READ", 1000)
    judge = {"path": str(tmp_path / "judge"), "revision": None, "dtype": "float32", "template_options": {}}
    heard = {
        "name": "gold_judge",
        "weight": 1.0,
        "judge": {**judge, "prompt": "prompts/boxed/gold_judge.txt"},
    }
    terms = [{"name": "match", "weight": 1.0}, heard]
    alone, judged = small_config(), small_config(reward={"terms": terms}, watched={"model": str(tmp_path)})

    def tokens(config, beside=False, **more):
        launch = {"sampler_beside": beside}
        auto = runtime(
            micro_batch_tokens="auto", sampling_batch_size="auto", vllm={"memory": 0.25}, launch=launch
        )
        return batch_sizes(config, auto, tmp_path / "base", 1, **more).tokens

    free = 0.9 * 20 - 5  # in models, beside the policy with its gradient and moments, and the reference
    whole = tokens(alone)
    assert tokens(judged) == pytest.approx(whole * (free - 1) / free, rel=0.05)
    assert tokens(alone, starts=1) == pytest.approx(whole * (free - 1) / free, rel=0.05)
    assert tokens(alone, beside=True) == pytest.approx(whole * (free - 0.9 * 5) / free, rel=0.05)
    with pytest.raises(UserError, match="not one dialogue fits"):
        Gpu.total_memory = 5 * weights
        tokens(judged)
