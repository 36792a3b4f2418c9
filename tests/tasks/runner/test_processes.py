"""Child processes: stopped gently and once, killed after the grace, never left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.runner.processes import Child

ROOT = Path(__file__).resolve().parents[3]
# Says its number, then works until it is interrupted, and then says what it saved.
WORKER = """
import os, time
try:
    print("process", os.getpid(), flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("saved", flush=True)
    raise SystemExit(130)
"""
# Like DVC: waits for a child of its own and ignores Ctrl-C meanwhile.
PARENT = f"""
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WORKER!r}])
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(child.wait())
"""


class Output:
    """What a child has printed; leaves its block with an error where `stop` says so."""

    def __init__(self, stop=lambda text: False):
        self.text, self.stop = "", stop

    def __call__(self, data: bytes) -> None:
        self.text += data.decode()
        if self.stop(self.text):
            self.stop = lambda text: False
            raise InterruptedError

    @property
    def process(self) -> int:
        return int(self.text.split()[1])


def run(code: str, feed: Output, **options) -> int:
    """The exit code of a child whose output is read as flows/child.py reads it."""
    with Child([sys.executable, "-c", code], os.environ, stdout=subprocess.PIPE, **options) as child:
        try:
            child.read(feed)
        except InterruptedError:
            child.stop()
            child.read(feed)
    return child.process.returncode


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(process: int) -> None:
    deadline = time.monotonic() + 30
    while alive(process):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 15)", -15)],
)
def test_the_watchdog_ends_as_the_command_does(end, code):
    assert run(f"import os, sys; {end}", Output()) == code


def test_a_command_that_closes_its_output_is_waited_for():
    assert run("import os, sys, time; os.close(1); os.close(2); time.sleep(0.5); os._exit(4)", Output()) == 4


def test_a_stop_interrupts_the_group_once_and_what_it_still_says_is_heard():
    output = Output(stop=lambda text: text.endswith("\n"))
    assert run(PARENT, output) == 130
    assert output.text.splitlines()[1:] == ["saved"]
    wait_until_gone(output.process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_block_that_is_left_stops_the_child_by_the_signal_asked_for(tmp_path, number):
    file = tmp_path / "signals"
    code = f"""
import os, pathlib, signal, time
def stop(number, frame):
    with open({str(file)!r}, "a") as file: print(number, file=file)
    raise SystemExit
signal.signal(2, stop); signal.signal(15, stop)
pathlib.Path({str(file)!r}).touch()
time.sleep(600)
"""
    with (
        pytest.raises(ZeroDivisionError),
        Child([sys.executable, "-c", code], os.environ, stop_signal=number) as child,
    ):
        while not file.exists():
            time.sleep(0.05)
        raise ZeroDivisionError
    assert child.process.returncode == 0
    assert file.read_text() == f"{number}\n"


def test_who_does_not_stop_is_killed_after_the_grace():
    output = Output(stop=lambda text: text.endswith("\n"))
    code = (
        "import os, signal, time; signal.signal(2, signal.SIG_IGN); "
        "print('process', os.getpid(), flush=True); time.sleep(600)"
    )
    assert run(code, output, grace=0.5) == -signal.SIGKILL
    wait_until_gone(output.process)


def test_what_a_killed_command_leaves_behind_can_save_and_is_ended():
    """SIGKILL for DVC, with a stage that has not heard of it."""

    def kill(text: str) -> bool:
        if text.endswith("\n") and "saved" not in text:
            parent = Path(f"/proc/{text.split()[1]}/stat").read_text().rpartition(")")[2].split()[1]
            os.kill(int(parent), signal.SIGKILL)
        return False

    output = Output(stop=kill)
    assert run(PARENT, output) == -signal.SIGKILL
    assert output.text.splitlines()[1:] == ["saved"]
    wait_until_gone(output.process)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_child_is_interrupted_when_its_parent_is_killed(tmp_path):
    # As DVC runs a stage, where the shell stays between the two.
    worker = tmp_path / "worker.py"
    worker.write_text(
        WORKER.replace('print("saved"', f'print("saved", file=open({str(tmp_path / "saved")!r}, "w")')
    )
    shell = f"import os, sys; sys.exit(os.system('{sys.executable} {worker}; true'))"
    flow = (
        "import os, sys; from tasks.runner.processes import Child\n"
        f"with Child([sys.executable, '-c', {shell!r}], os.environ) as child: child.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", flow], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline().split()[1])
    parent.kill()
    parent.communicate()
    wait_until_gone(child)
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_a_child_started_by_a_background_job_hears_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        output = Output()
        run("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)", output)
        assert output.text == "True\n"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_child_starts_without_torch_and_prefect():
    code = (
        "import sys, tasks.runner.processes; print({'torch', 'prefect', 'dvc', 'pydantic'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"
