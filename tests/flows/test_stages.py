"""What a person reads when a stage fails, and whether another try may help."""

import logging

import pytest

from flows.stages import _level, failure, worth_retrying

COMMAND = "python -m tasks.train models/stage1 --name stage1"
DVC_ERROR = f"ERROR: failed to reproduce 'train_stage1': failed to run: {COMMAND}, exited with"


def failed(own_code, code=255):
    tail = ["step 41", "RuntimeError: out of memory"] + ([f"{DVC_ERROR} {own_code}"] if own_code else [])
    return failure("train_stage1", COMMAND, code, tail)


def test_a_failure_names_stage_command_last_lines_and_how_to_resume():
    said = failed(1).message
    assert said.splitlines()[0] == f"train_stage1 failed: `{COMMAND}` exited with 1."
    assert "    RuntimeError: out of memory\n" in said
    assert "To resume, run it again: `make flow`" in said and "`dvc repro train_stage1`" in said


def test_a_users_mistake_is_to_be_mended_and_not_tried_again():
    mistake = failed(2)
    assert mistake.is_failed() and mistake.name == "Refused"
    assert "Fix the error above, then run" in mistake.message
    assert not worth_retrying(None, None, mistake)
    for code in (1, 21, 143):
        assert worth_retrying(None, None, failed(code))


def test_a_killed_dvc_is_told_apart_from_a_failed_stage():
    assert "DVC was killed by signal 9" in failed(None, code=-9).message
    assert "DVC failed" in failed(None, code=255).message


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR: failed to reproduce 'report'", logging.ERROR),
        ("error: params.yaml: stage1.stepz is unknown", logging.ERROR),
        ("Traceback (most recent call last):", logging.ERROR),
        ("10:00:00 train_stage1 ERROR lost", logging.ERROR),
        ("10:00:00 train_stage1 WARNING Stage I has not taken off", logging.WARNING),
        ("evaluate models/base: 100%", logging.INFO),
    ],
)
def test_the_level_of_a_line_is_what_it_says(line, level):
    assert _level(line) == level
