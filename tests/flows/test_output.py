"""Output as a log takes it: lines whole however they are cut, progress thinned, secrets masked."""

import random

import pytest

from flows.output import MASK, Lines, masker, secrets


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(chunks, every=5.0, clock=None):
    said = []
    lines = Lines(said.append, every, clock or Clock())
    for chunk in chunks:
        lines.feed(chunk)
    lines.close()
    return said


def test_lines_are_the_same_however_the_bytes_are_cut():
    text = "first\nsecond → dritte Zeile\r\n\n\x1b[31mred\x1b[0m\nlast without an end".encode()
    whole = ["first", "second → dritte Zeile", "red", "last without an end"]
    assert lines_of([text]) == whole
    random.seed(1)
    for _ in range(50):
        cuts = sorted(random.sample(range(len(text)), 8))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert lines_of(pieces) == whole


def test_of_a_progress_bar_one_line_passes_in_a_few_seconds_and_the_last():
    clock, said = Clock(), []
    lines = Lines(said.append, 5.0, clock)
    for step in range(101):  # as tqdm writes: the carriage return first
        clock.now = step / 5
        lines.feed(f"\r{step}%".encode())
    lines.feed(b"\n")
    lines.close()
    assert said[0] == "0%" and said[-1] == "100%"
    assert 4 <= len(said) <= 6


def test_a_line_after_progress_is_not_lost_or_delayed():
    said = []
    lines = Lines(said.append, 5.0, Clock())
    lines.feed(b"\r1%\r2%\r3%\nERROR: gone\n")
    assert said == ["1%", "3%", "ERROR: gone"]


ENVIRONMENT = {
    "HF_TOKEN": "hf_abcdefghij",
    "WANDB_API_KEY": "0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "aws/with+signs",
    "MY_PASSWORD": "correct horse",
    "SIGNING_KEY": "-----BEGIN-----\nmiddle-of-the-key\n-----END-----",
    "PREFECT_API_AUTH_STRING": "admin:swordfish",
    "SCORE_WEBHOOK_URL": "https://chat.example/services/T0/B0/xyz",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql://me:hunter22@db/prefect",
    "HTTPS_PROXY": "http://user:sekret@proxy:3128",
    "MLFLOW_TRACKING_URI": "https://u:pw@tracking.example",
    "BROKER": "redis://:only-a-password@10.0.0.1/0",
    "GH_PAT": "github_pat_0123",
    "PREFECT_API_URL": "http://127.0.0.1:4200/api",
    "GIT_REMOTE": "ssh://git@host.example:22/a/repository@v1",
    "SPACE_KEY": "1",
    "HOME": "/home/somebody",
}


@pytest.mark.parametrize("name", [name for name in ENVIRONMENT if name not in ("SPACE_KEY", "SIGNING_KEY")])
def test_values_of_secret_variables_are_masked_and_others_are_not(name):
    text = masker(ENVIRONMENT)(f"before {ENVIRONMENT[name]} after 1")
    public = name in ("PREFECT_API_URL", "GIT_REMOTE", "HOME")
    assert text == f"before {ENVIRONMENT[name] if public else MASK} after 1"


def test_the_password_of_an_address_is_masked_where_it_stands_alone():
    mask = masker(ENVIRONMENT | {"QUEUE": "amqp://me:p%40ssword@mq:5672"})
    assert mask("user sekret, at proxy:3128") == f"user {MASK}, at proxy:3128"
    assert mask("hunter22, only-a-password, p%40ssword, p@ssword") == ", ".join([MASK] * 4)


def test_a_secret_of_many_lines_is_masked_line_by_line():
    assert masker(ENVIRONMENT)("middle-of-the-key") == MASK


def test_of_two_secrets_the_longer_one_goes_whole():
    environment = {"A_TOKEN": "secret", "B_TOKEN": "secret-and-more"}
    assert secrets(environment) == ["secret-and-more", "secret"]
    assert masker(environment)("secret-and-more secret") == f"{MASK} {MASK}"


def test_without_secrets_nothing_is_masked():
    assert masker({"HOME": "/root"})("any text") == "any text"
