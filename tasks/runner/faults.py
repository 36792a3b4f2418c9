"""Faults of the machine, wherever they are raised: neither a bug nor a mistake in a file, but one line."""

import errno
import re
import sys
import traceback

# What an operating system answers, and what helps.
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space and run it again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "mend its permissions, or name another path"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP), "name another path"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (`ulimit -n`)"),
    errno.EROFS: "mount it for writing, or name another path",
    errno.EIO: "look after the disk",
    errno.EAGAIN: "allow more processes (`ulimit -u`), or end some",
}
# Where memory ran out, by a function that was at work, the inner ones first, and what takes less of it.
LESS = {
    "attempt_all": "evaluation.batch_size in params.yaml",
    "roll_out": "sampling_batch_size in runtime.yaml",
    "_inner_training_loop": "micro_batch_tokens in runtime.yaml",
    "make_problems": "data.sizes in params.yaml",
    "build": "the sizes in model in params.yaml",
}


def fault(error: BaseException) -> str | None:
    """What is to be said of an error that is the machine's; None of any other."""
    if _is_of_memory(error):
        at_work = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
        lower = next((setting for name, setting in LESS.items() if name in at_work), None)
        remedy = f"lower {lower}" if lower else "take a smaller model, or a machine with more"
        return f"out of memory ({_first_line(error)}); {remedy}."
    number = error.errno if isinstance(error, OSError) else _number_within(error)
    if number not in REMEDIES:
        return None
    named = getattr(error, "filename", None)
    return f"{named or 'the machine'}: {_first_line(error)}; {REMEDIES[number]}."


def _is_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return getattr(error, "errno", None) == errno.ENOMEM or "DefaultCPUAllocator" in str(error)


def _number_within(error: BaseException) -> int | None:
    """The number that safetensors, whose errors are no OSError, writes into the text."""
    found = (
        re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    )
    return int(found[1]) if found else None


def _first_line(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0][:200]
