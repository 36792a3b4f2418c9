"""MATH in its authors' own layout, `MATH/{train,test}/<subject>/<n>.json`: a folder, a tar file, an address.

A tar file is read where it is: nothing in it is unpacked, so no path in it can lead anywhere.
"""

import hashlib
import io
import json
import re
import tarfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from score_core.config.data import ArchiveData
from score_core.data.sources import Row, Source, Split, labels_of
from score_core.errors import UserError, refusing

FIELDS = ("problem", "level", "type", "solution")
COLUMNS = ("level", "subject")  # what `evaluation.by` may name; the archive calls the second `type`
MOST_BYTES = 1_000_000  # of one problem; the largest has a hundredth
MOST_FETCHED = 2**30  # bytes; a whole archive has a fiftieth
SECONDS = 60  # that a server may say nothing
_PROBLEM = re.compile(r"(?:^|/)(train|test)/([^/]+)/([0-9]+)\.json$")
MIRRORS = (
    "the public link is dead since January 2025: name a copy of yours in data.path (the folder or the tar "
    "file), or take a set on the hub that holds the same problems, as conf/profile/math_small.yaml does"
)

# A problem's place in the archive, in the archive's order.
Place = tuple[str, str, int]


def read_math_archive(data: ArchiveData, by: tuple[str, ...] = ()) -> Source:
    """Reads both splits; the source's revision is the tar file's hash.

    Args:
        by: columns of `COLUMNS` that rows keep.

    Raises:
        UserError: it is not there, cannot be fetched, or is not in this layout.
    """
    for name in by:
        if name not in COLUMNS:
            raise UserError(
                f"evaluation.by: MATH has no column {name}; expected some of {', '.join(COLUMNS)}."
            )
    path = Path(data.path)
    if data.local and path.is_dir():
        found, revision = dict(_in_folder(path)), None
    elif data.local and not path.exists():
        raise UserError(
            f"data.path: {path} is not there; expected MATH's unpacked folder or its tar file; {MIRRORS}."
        )
    else:
        content = _read_tar(data)
        found = dict(_in_tar(data.path, content))
        revision = f"sha256 {hashlib.sha256(content).hexdigest()}"
    return Source(_split(data, "train", found, by), _split(data, "test", found, by), revision)


def _split(data: ArchiveData, name: str, found: dict[Place, bytes], by: tuple[str, ...]) -> Split:
    places = sorted(place for place in found if place[0] == name)
    if not places:
        raise UserError(
            f"{data.path}: no problem at MATH/{name}/<subject>/<number>.json, found {len(found)} in all; "
            "expected the archive as its authors packed it."
        )
    rows = [_row(data.path, number, place, found[place], by) for number, place in enumerate(places)]
    return Split(f"{data.path}:{name}", rows)


def _row(where: str, number: int, place: Place, content: bytes, by: tuple[str, ...]) -> Row:
    name = "{}/{}/{}.json".format(*place)
    with refusing(
        f"{where}: {name} is no problem of MATH", f"expected an object of the texts {', '.join(FIELDS)}"
    ):
        columns = {field: json.loads(content)[field] for field in FIELDS}
        if not all(isinstance(value, str) for value in columns.values()):
            raise TypeError("no text")
    columns |= {"subject": columns["type"], "level": columns["level"].removeprefix("Level ")}
    labels = labels_of(columns, by)
    return Row(number, name, columns["problem"], (columns["solution"],), labels)


def _place(path: str) -> Place | None:
    match = _PROBLEM.search(path)
    return None if match is None else (match[1], match[2], int(match[3]))


def _in_folder(folder: Path) -> Iterator[tuple[Place, bytes]]:
    for path in folder.rglob("*.json"):
        place = _place(path.relative_to(folder).as_posix())
        if place is not None:
            with refusing(f"{path} cannot be read", "unpack the archive again"):
                yield place, path.read_bytes()


def _in_tar(where: str, content: bytes) -> Iterator[tuple[Place, bytes]]:
    remedy = "expected MATH's tar file, whole; fetch or copy it again"
    with refusing(f"{where} cannot be read", remedy), tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            place = _place(member.name)
            if place is not None and member.isfile():
                if member.size > MOST_BYTES:
                    raise ValueError(f"{member.name} has {member.size} bytes")
                file = tar.extractfile(member)
                assert file is not None
                yield place, file.read()


def _read_tar(data: ArchiveData) -> bytes:
    """The tar file, some 20 MB of which are of use to nobody but this run, so no copy is kept."""
    if data.local:
        with refusing(f"data.path: {data.path} cannot be read", "check its permissions"):
            return Path(data.path).read_bytes()
    try:
        with urllib.request.urlopen(data.path, timeout=SECONDS) as answer:
            content: bytes = answer.read(MOST_FETCHED)
            return content
    except (OSError, HTTPException) as error:
        raise UserError(f"data.path: {data.path} could not be fetched ({error}); {MIRRORS}.") from error
