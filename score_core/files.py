"""Outputs appear whole or not at all, and what a user's file holds is read or refused.

Everything is written under a temporary name beside its target and renamed, so a process killed half
way leaves nothing that a later stage could take for a result; what it leaves the next try removes.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from score_core.errors import UserError, refusing


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path; what is written there becomes `target` if the block ends well.

    The block creates a file or a directory at the path. On an exception the temporary is removed
    and `target` is left as it was.

    Raises:
        UserError: the folder that is to hold `target` cannot be written, or the disk is full.
    """
    check_writable(target)
    temporary = target.with_name(f".{target.name}.tmp")
    remove(temporary)
    try:
        yield temporary
        if target.is_dir():
            # A rename cannot replace a folder that is not empty.
            shutil.rmtree(target)
        temporary.replace(target)
    except Exception as error:
        if isinstance(error, UserError) or not is_disk_full(error):
            raise
        free = shutil.disk_usage(target.parent).free
        raise UserError(
            f"{target}: the disk is full ({free / 1e6:.3g} MB are free), so it was not written; free some "
            "space and run the same command again."
        ) from error
    finally:
        remove(temporary)


def check_writable(target: Path) -> None:
    """Fails now, rather than after hours of training, if `target` could not be written.

    Raises:
        UserError: with the folder and the remedy.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = target.parent / f".{target.name}.probe"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process of this run may try the same
    except OSError as error:
        raise UserError(
            f"{target}: cannot write here ({error.strerror}); expected a folder this user may write "
            "to, with space left. Mend its permissions, free some space, or run from a checkout of your own."
        ) from error


def is_disk_full(error: Exception) -> bool:
    """Whether something could not be written for want of space; safetensors says so in words only."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left on device" in str(error)


def remove(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(target: Path, content: Any) -> None:
    """Writes `content` as indented JSON, atomically; NaN and infinity are refused."""
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_text(path: Path, remedy: str) -> str:
    """Reads a text file, which is UTF-8 whatever the machine's locale.

    Raises:
        UserError: it is missing, cannot be read or is no text; with the remedy.
    """
    with refusing(f"{path}: cannot be read as UTF-8 text", remedy):
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"{path}: not found; {remedy}.") from None


def read_json(path: Path, made_by: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a JSON object that another stage made.

    Raises:
        UserError: it is missing, is no JSON object or lacks one of `keys`; the message names the stage
            that makes it.
    """
    remedy = f"run `dvc repro {made_by}`, which makes it"
    text = read_text(path, remedy)
    with refusing(f"{path}: not valid JSON", f"remove it and {remedy}"):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(content).__name__}; {remedy}.")
    for key in keys:
        if key not in content:
            raise UserError(f"{path}: {key} is missing, found {', '.join(content) or 'nothing'}; {remedy}.")
    return content


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a YAML file of keys and values, none of them twice.

    Raises:
        UserError: it is missing, or is none; with the line.
    """
    text = read_text(path, remedy)
    with refusing(f"{path}: not valid YAML", f"mend it, or {remedy}"):
        content = parse_yaml(text)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected `key: value` lines, found none; mend it, or {remedy}.")
    return content


def parse_yaml(text: str) -> Any:
    """What `text` says in YAML 1.2, by DVC's own reader: to both `011` is 11, and `no` a word.

    Raises:
        ValueError: it is not valid, or gives a key twice.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{where}{error.problem}") from error


def tree_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path there; what Python compiles is left out."""
    return {
        str(path.relative_to(folder)): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        UserError: it cannot be read.
    """
    with refusing(f"{file}: cannot be read", "put it there again"), file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
