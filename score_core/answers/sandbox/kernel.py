"""What the sandbox asks of Linux, without a library: namespaces, mounts, capabilities, a filter of system calls.

Python 3.11 has none of these. Constants and structures are those of the kernel's headers (uapi).
"""

import contextlib
import ctypes
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

# What neither a program nor its tests may call: by machine, the AUDIT_ARCH, pivot_root's number, and the refused.
_REFUSED = {
    # clone fork vfork clone3 execve execveat: no process or thread beside the one that there is
    # kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open pidfd_getfd: no signals
    # ptrace process_vm_readv process_vm_writev kcmp prlimit64 setrlimit setsid setpgid: no hand on others
    # socket socketpair shmget msgget semget mq_open memfd_create memfd_secret: no memory outside the limits
    # io_uring_setup bpf perf_event_open userfaultfd keyctl add_key request_key: what programs do not need
    # unshare setns mount pivot_root open_by_handle_at: no way back
    "x86_64": (
        0xC000003E,
        155,
        (56, 57, 58, 435, 59, 322)
        + (62, 200, 234, 129, 297, 424, 434, 438)
        + (101, 310, 311, 312, 302, 160, 112, 109)
        + (41, 53, 29, 68, 64, 240, 319, 447)
        + (425, 321, 298, 323, 250, 248, 249)
        + (272, 308, 165, 155, 304),
    ),
    "aarch64": (
        0xC00000B7,
        41,
        (220, 435, 221, 281)
        + (129, 130, 131, 138, 240, 424, 434, 438)
        + (117, 270, 271, 272, 261, 164, 157, 154)
        + (198, 199, 194, 186, 190, 180, 279, 447)
        + (425, 280, 241, 282, 219, 217, 218)
        + (97, 268, 40, 41, 265),
    ),
}
_X32 = 0x40000000  # from here on, x86-64's other numbering of the same calls

_libc = ctypes.CDLL(None, use_errno=True)
_NOTHING = (ctypes.c_ulong(0),) * 3


def unshare(flags: int) -> None:
    """Moves this process to new namespaces; of a new PID namespace only its next child is in.

    Raises:
        OSError: as do all functions here, when the kernel refuses.
    """
    _check(_libc.unshare(flags), "unshare")


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
    _check(_libc.syscall(_REFUSED[platform.machine()][1], b".", b"."), "pivot_root")
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
    if platform.machine() not in _REFUSED:
        raise OSError(f"system calls of {platform.machine()} are not known; known: {', '.join(_REFUSED)}")
    architecture, _, refused = _REFUSED[platform.machine()]
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


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), *_NOTHING), f"prctl {option}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
