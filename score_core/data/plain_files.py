"""Rows of CSV and JSONL files, each value as the text that stands in the file.

Readers that guess types change what they read: `007` becomes 7, `NA` nothing, a date a timestamp, and an
integer beyond 2^53 another one.
"""

import csv
import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def read_csv(path: Path) -> Rows:
    """Rows by the header's names, all values text.

    Raises:
        OSError, ValueError: it cannot be read, or a row has more or fewer values than the header.
    """
    rows: Rows = []
    header: list[str] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        try:
            for values in filter(None, lines):  # without empty lines
                header = header or values
                if len(values) != len(header):
                    raise ValueError(f"expected {len(header)} values, found {len(values)}")
                rows.append(_named(list(zip(header, values, strict=True))))
        except (csv.Error, ValueError) as error:
            raise ValueError(f"line {lines.line_num}: {error}") from None
    return rows[1:]  # without the header


def read_jsonl(path: Path) -> Rows:
    """Rows of one JSON object a line; numbers are text, `NaN` and the infinities nothing.

    Raises:
        OSError, ValueError: it cannot be read, or a line holds anything else.
    """
    rows: Rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = _DECODER.decode(line) if line.strip() else {}
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number}: expected an object, found {line.strip()[:40]!r}")
            rows += [row] if row else []
    return rows


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"a name is given twice in {', '.join(name for name, _ in pairs)}")
    return row


_DECODER = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=lambda _: None, object_pairs_hook=_named
)
