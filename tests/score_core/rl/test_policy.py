"""The policy: adapters that do not fit the model under them."""

import pytest
import torch

from score_core.embedded import tiny_model
from score_core.errors import UserError
from score_core.rl.policy import load_policy
from tests.configs import config


@pytest.mark.parametrize("targets", [["nothing"], ["embed_tokens", "norm"], ["["]])
def test_targets_that_match_no_layer_are_refused(tmp_path, targets):
    tiny_model.build("qwen2", 1, tmp_path / "base")
    lora = config(lora={"targets": targets})
    with pytest.raises(
        UserError, match=r"^lora: .*base takes no such adapter \(.+\); let targets name"
    ) as caught:
        load_policy(lora, tmp_path / "base", tmp_path / "base", torch.device("cpu"))
    assert "\n" not in str(caught.value)
