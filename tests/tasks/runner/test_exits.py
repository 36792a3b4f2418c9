"""How a command ends: what is said of interpreter, machine and streams; and a bug keeps its traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from score_core.errors import UserError
from tasks.runner.exits import exit_code
from tasks.runner.faults import fault

ROOT = Path(__file__).resolve().parents[3]


def said_by(capsys: pytest.CaptureFixture[str], work: object) -> str:
    """The line with which a command ends with 2."""
    assert exit_code("test", work) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def raising(error: BaseException):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/home/a"),
            "/home/a: Permission denied; mend",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the machine: No space left on device; free",
        ),
        (OSError(errno.EMFILE, "Too many open files", "x"), "x: Too many open files; allow more open files"),
        (
            OSError(errno.EROFS, "Read-only file system", "x"),
            "x: Read-only file system; mount it",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "x: File name too long; name another path"),
        (UserError("a key\nin two lines"), "error: a key in two lines"),
    ],
)
def test_faults_of_the_machine_are_one_line(capsys, error, said):
    assert said in said_by(capsys, raising(error))


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), FileNotFoundError(errno.ENOENT, "a bug"), KeyError("a")]
)
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        exit_code("test", raising(error))


def _inner_training_loop():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")


def roll_out():
    torch.empty(2**60)


def attempt_all():
    roll_out()


def elsewhere():
    raise MemoryError


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (
            _inner_training_loop,
            "out of memory (CUDA out of memory. Tried to allocate 2 GiB.); lower micro_batch_tokens",
        ),
        (roll_out, "lower sampling_batch_size in runtime.yaml"),
        (attempt_all, "lower evaluation.batch_size in params.yaml"),
        (elsewhere, "out of memory (MemoryError); take a smaller model"),
    ],
)
def test_out_of_memory_names_what_to_lower(capsys, work, said):
    assert said in said_by(capsys, work)


def test_what_out_of_memory_goes_by_is_there():
    from transformers import Trainer

    from score_core.embedded import addition, addition_model
    from score_core.evaluation import evaluate
    from score_core.rollout import roll_out as rolling

    for place, name in (
        (Trainer, "_inner_training_loop"),
        (rolling, "roll_out"),
        (evaluate, "attempt_all"),
        (addition, "make_problems"),
        (addition_model, "build"),
    ):
        assert callable(getattr(place, name))


@pytest.fixture
def group():
    """One process that belongs to a group of one."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


LOST = "NCCL error in: ProcessGroupNCCL.cpp: remote process exited or there was a network error"


def test_a_lost_process_is_told_from_a_bug(capsys, group):
    for error in (torch.distributed.DistBackendError(LOST), torch.distributed.DistNetworkError("reset")):
        assert exit_code("test", raising(error)) == os.EX_TEMPFAIL
        assert "another process of this run has ended" in capsys.readouterr().err
    with pytest.raises(RuntimeError):
        exit_code("test", raising(RuntimeError(LOST)))


def test_a_full_disk_is_seen_through_safetensors(tmp_path):
    from safetensors import SafetensorError

    assert "free some space" in fault(SafetensorError("I/O error: No space left on device (os error 28)"))
    assert fault(SafetensorError("header too large")) is None


def run(code: str, *options: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess:
    """A Python process whose `work` is `code`."""
    program = f"import sys\nfrom tasks.runner.exits import exit_code\ndef work():\n    {code}\n"
    program += "sys.exit(exit_code('test', work))"
    line = ["bash", "-o", "pipefail", "-c", f'"$@" {shell}', "bash", sys.executable, *options, "-c", program]
    plain = {name: text for name, text in os.environ.items() if name != "WORLD_SIZE"}
    return subprocess.run(line, cwd=ROOT, env={**plain, **environment}, capture_output=True, text=True)


def test_without_assertions_nothing_runs():
    done = run("print('ran')", "-O")
    assert (done.returncode, done.stdout) == (2, "") and "python -O" in done.stderr
    assert "Traceback" not in done.stderr


def test_processes_of_somebody_else_are_not_joined():
    done = run("print('ran')", WORLD_SIZE="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: WORLD_SIZE in the environment" in done.stderr
    assert run("print('ran')", WORLD_SIZE="2", SCORE_ENDING="/nowhere").stdout == "ran\n"


def test_output_that_nobody_reads_ends_in_one_line():
    done = run("[print('x' * 99) for _ in range(9999)]", shell="| head -c 9 > /dev/null")
    assert done.returncode == 141
    assert done.stderr == "test: what read standard output has closed it, so this ends here\n"


def test_a_broken_pipe_of_another_kind_is_a_bug():
    assert "Traceback" in run("raise BrokenPipeError").stderr


def test_closed_streams_are_said(tmp_path):
    done = run(f"open({str(tmp_path / 'file')!r}, 'w').fileno() == 1 and exit(3)", shell=">&- <&-")
    assert done.returncode == 0
    assert done.stderr == "test: standard output is closed, so nothing is said there\n"


def test_what_a_terminal_cannot_show_is_replaced():
    done = run("print('wrong \\u2192 right')", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="POSIX")
    assert (done.returncode, done.stdout) == (0, "wrong ? right\n")
