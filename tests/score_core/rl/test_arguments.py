"""What transformers' Trainer is told: to report to nobody, unless somebody chose it."""

from importlib.util import find_spec

import pytest

from score_core.rl.arguments import training_arguments
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
