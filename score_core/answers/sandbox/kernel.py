"""What the sandbox asks of Linux: namespaces, mounts, capabilities, a filter of system calls.

Python 3.11 has none of these itself. Constants and structures are those of the kernel's headers (uapi).
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct

NEW_USER, NEW_NS, NEW_PID, NEW_NET = 0x10000000, 0x00020000, 0x20000000, 0x40000000
NEW_IPC, NEW_UTS, NEW_CGROUP = 0x08000000, 0x04000000, 0x02000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_MOUNT_SETATTR = 442  # the same number everywhere

# What neither a program nor its tests may call, by their numbers on x86_64 and aarch64 (None: not there).
# fmt: off
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # no process or thread beside the one that there is
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281),
    # no signals, no hand on other processes or on limits
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kcmp": (312, 272), "prlimit64": (302, 261), "setrlimit": (160, 164),
    "setsid": (112, 157), "setpgid": (109, 154), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    # no channels to others, no memory outside the limits
    "socket": (41, 198), "socketpair": (53, 199), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # what no such program needs, and no way out
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "pivot_root": (155, 41),
    "open_by_handle_at": (304, 265),
}
# fmt: on
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_X32 = 0x40000000  # from here on, x86-64's other numbering of the same calls

_libc = ctypes.CDLL(None, use_errno=True)
_NOTHING = (ctypes.c_ulong(0),) * 3


def unshare(flags: int) -> None:
    """Moves this process to new namespaces; of a new PID namespace only its next child is in.

    Raises:
        OSError: as do all functions here, when the kernel refuses.
    """
    try:
        _check(_libc.unshare(flags), "unshare")
    except OSError as error:
        if error.errno == errno.ENOSPC:  # what the kernel says of a limit of zero, too
            raise OSError(errno.ENOSPC, "user.max_user_namespaces allows no more of them") from None
        raise


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    texts = [text.encode() for text in (source, target, kind)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def make_read_only(folder: str) -> None:
    """Makes all mounts below `folder` read-only, without devices and set-user-id programs; Linux 5.12 on."""
    attributes = struct.pack("QQQQ", 1 | 2 | 4, 0, 0, 0)
    at_fdcwd, recursive = -100, 0x8000
    call = (at_fdcwd, folder.encode(), recursive, attributes, ctypes.c_size_t(len(attributes)))
    _check(_libc.syscall(_MOUNT_SETATTR, *call), "mount_setattr")


def change_root(folder: str) -> None:
    """Makes `folder`, a mount, the root, and drops the old one."""
    os.chdir(folder)
    _check(_libc.syscall(_number("pivot_root"), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", 2), "umount2")  # lazily: what is open stays open
    os.chdir("/")


def drop_privileges() -> None:
    """Gives up every capability for good, and closes this process to debuggers of the same user."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # beyond the last one, and where there are none to give up
            _prctl(_PR_CAPBSET_DROP, capability)
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Has the kernel kill this process when the one that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def set_limits(seconds: int, memory_bytes: int) -> None:
    """CPU time, address space, open files and the size of written ones, of this process."""
    limits = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),  # the signal may be ignored for a second
        resource.RLIMIT_AS: (memory_bytes, memory_bytes),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_FSIZE: (1 << 16, 1 << 16),
        resource.RLIMIT_CORE: (0, 0),
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, limit)


def refuse_system_calls() -> None:
    """From here on the calls in `_REFUSED` fail with EPERM in this process; cannot be undone.

    Raises:
        OSError: the kernel has no such filters, or this machine's system calls are not known here.
    """
    refused = [number for name in _REFUSED if (number := _number(name)) is not None]
    architecture = _ARCHITECTURES[platform.machine()][1]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # BPF: load, jump if ==, jump if >=, return
    allow, eperm, kill = 0x7FFF0000, 0x00050001, 0x80000000
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, architecture),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, len(refused) + 1, 0, _X32),
    ]
    program += [(equal, len(refused) - at, 0, number) for at, number in enumerate(refused)]
    program += [(answer, 0, 0, allow), (answer, 0, 0, eperm)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filters = struct.pack("HP", len(program), ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), filters, *_NOTHING[:2]), "seccomp")


def _number(name: str) -> int | None:
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(f"system calls are known here of {', '.join(_ARCHITECTURES)}, not {platform.machine()}")
    return _REFUSED[name][_ARCHITECTURES[platform.machine()][0]]


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), *_NOTHING), f"prctl {option}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
