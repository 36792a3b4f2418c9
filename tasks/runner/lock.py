"""One at a time: a stage or a flow in a checkout, and trainers and evaluations on a machine's accelerators.

The locks are the kernel's (`flock`), which frees them whenever and however their process ends. Nobody needs
to clean up, and the files mean nothing by themselves. On a machine without accelerators only the checkout
counts: other checkouts may use the processor as they like.
"""

import fcntl
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)
Log = logging.Logger | logging.LoggerAdapter

# Of the machine, and not TMPDIR, which a service and a shell need not have in common.
MACHINE = Path("/tmp") / f"score-locks-{os.getuid()}"


@contextmanager
def exclusive(holder: str, folder: Path | None, accelerated: bool, log: Log = log) -> Iterator[None]:
    """Waits until no other process holds the same locks, and holds them until the `with` block ends.

    Args:
        holder: what others that wait are told, e.g. the name of a stage.
        folder: of the stage in this checkout, which holds one lock; None leaves the checkout out.
        accelerated: whether it uses accelerators where there are some; each has a lock on this machine.
        log: says who is waited for.
    """
    # The checkout's first and the machine's in order, so that no two processes wait for each other.
    files = [folder / "lock"] if folder else []
    files += [MACHINE / f"{device}.lock" for device in sorted(accelerators() if accelerated else [])]
    with ExitStack() as held:
        for file in files:
            held.enter_context(_locked(file, holder, log))
        yield


def accelerators() -> list[str]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves to this process, by their unique names."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True).stdout.split()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return listed
    # A negative number, or nothing at all, is how one asks for none.
    chosen = [name.strip() for name in visible.split(",") if name.strip() and not name.startswith("-")]
    return [listed[int(name)] if name.isdigit() and int(name) < len(listed) else name for name in chosen]


@contextmanager
def _locked(file: Path, holder: str, log: Log) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("waiting for %s, which holds %s", _describe_holder(file), file)
            fcntl.flock(opened, fcntl.LOCK_EX)
            log.info("the lock is free")
        opened.truncate(0)
        json.dump({"holder": holder, "pid": os.getpid(), "folder": str(Path.cwd())}, opened)
        opened.flush()
        yield


def _describe_holder(file: Path) -> str:
    try:
        found = json.loads(file.read_text())
        return f"{found['holder']} (process {found['pid']} in {found['folder']})"
    except (ValueError, KeyError):
        return "a process that has not written its name yet"
