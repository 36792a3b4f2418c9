"""A place without the user's files, network and other processes, made of Linux namespaces.

What bubblewrap makes, for machines without it; both hold the same (`FOLDERS`), nothing of it writable.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from score_core.answers.sandbox import kernel

# Python's library and what it links to.
FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", f"{sys.base_prefix}/lib")
ROOT = "/tmp"  # hidden below by what is to become the root; only seen in here
NOBODY = 65534


def contents() -> tuple[dict[str, str], list[str]]:
    """What `FOLDERS` are on this machine: symbolic links with their targets, and folders to mount."""
    there = [path for path in dict.fromkeys(FOLDERS) if Path(path).is_dir()]
    links = {path: str(Path(path).readlink()) for path in there if Path(path).is_symlink()}
    folders = [path for path in there if path not in links]
    return links, [path for path in folders if not {*map(str, Path(path).parents)} & {*folders}]


def enter() -> None:
    """Moves this process there for good, as the first one of a new PID namespace.

    The process that calls is left outside, waits for the one in there, and exits as that does.

    Raises:
        OSError: the kernel does not let this user.
    """
    links, folders = contents()
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEW_USER | kernel.NEW_NS | kernel.NEW_PID | kernel.NEW_NET)
    kernel.unshare(kernel.NEW_IPC | kernel.NEW_UTS | kernel.NEW_CGROUP)
    for name, text in {
        "self/setgroups": "deny",
        "self/uid_map": f"{NOBODY} {user} 1",
        "self/gid_map": f"{NOBODY} {group} 1",
        "self/oom_score_adj": "1000",  # where memory runs out, a program goes first, and no stage
        "sys/user/max_user_namespaces": "0",
    }.items():
        Path("/proc", name).write_text(text)
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    # By descriptor, since a path may lie below what ROOT hides next.
    opened = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in folders}
    kernel.mount("none", ROOT, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path, target in links.items():
        Path(ROOT + path).parent.mkdir(parents=True, exist_ok=True)
        Path(ROOT + path).symlink_to(target)
    for path, descriptor in opened.items():
        Path(ROOT + path).mkdir(parents=True)
        kernel.mount(f"/proc/self/fd/{descriptor}", ROOT + path, "none", kernel.MS_BIND | kernel.MS_REC)
        os.close(descriptor)
    kernel.make_read_only(ROOT)
    kernel.change_root(ROOT)
    child = os.fork()
    if child:
        _leave_with(child)


def _leave_with(child: int) -> NoReturn:
    for descriptor in (0, 1, 2):  # else nobody outside would see that the child has closed its own
        os.close(descriptor)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
