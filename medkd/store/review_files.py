"""Rows for people to fill in, and those that they have filled in: CSV as spreadsheets read and write it, and JSON lines.

In a CSV file a cell that a spreadsheet would take for a formula begins with an apostrophe, which is taken off when it is read.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medkd.errors import InputError
from medkd.store.source_files import Options, kind_of, opened

_NO_OPTIONS: Options = {}

# What makes a spreadsheet take a cell for a formula, also behind apostrophes of ours.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class FilledRow:
    """One row as somebody filled it in, and where it stands: file and line."""

    place: str
    values: Mapping[str, Any]


def as_csv(rows: Iterable[Mapping[str, str]], columns: Sequence[str]) -> bytes:
    """CSV that spreadsheets open as it is meant: UTF-8 with its mark, no cell a formula, line breaks kept in quotes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_guarded(row[name]) for name in columns] for row in rows)
    return text.getvalue().encode("utf-8-sig", "replace")


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def read(path: str, options: Options = _NO_OPTIONS) -> list[FilledRow]:
    """The rows of a filled file; InputError where it cannot be read or a line of it is no row."""
    with opened(path, options) as file:
        data = file.read()
    return _read_csv(path, data) if kind_of(path) == "csv" else _read_jsonl(path, data)


def _guarded(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _read_csv(path: str, data: bytes) -> list[FilledRow]:
    text = _decoded(data)
    first = text.partition("\n")[0]
    # Spreadsheets of other languages write semicolons, and tabs where they say "text".
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[FilledRow] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        line = reader.line_num
        for cells in reader:
            place, line = f"{path}:{line + 1}", reader.line_num
            if len(cells) > len(header):
                raise InputError(
                    f"{place}: got {len(cells)} cells, the header has {len(header)} columns; quote what holds commas"
                )
            if any(cells):
                values = {name: cell[1:] if _GUARDED.match(cell) else cell for name, cell in zip(header, cells, strict=False)}
                rows.append(FilledRow(place, values))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error}); save it again as CSV UTF-8") from None
    return rows


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # As spreadsheets write it where nobody chose UTF-8.
        return data.decode("cp1252", "replace")


def _read_jsonl(path: str, data: bytes) -> list[FilledRow]:
    rows: list[FilledRow] = []
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it again as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise InputError(f"{path}:{number}: got no JSON object, expected one a line, as the export writes them")
        rows.append(FilledRow(f"{path}:{number}", values))
    return rows
