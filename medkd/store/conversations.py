"""Existing conversations as an input: CSV, JSONL or Parquet files at any path or URL, in one fixed order.

Row numbers count over all files sorted by path, so the order in which files are named changes nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from medkd.errors import ConfigError, InputError
from medkd.samples import sha256_hex


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of the files hold what; None: there is no such column."""

    conversation: str = "conversation"
    id: str | None = None
    record: str | None = None
    topic: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedRow:
    """One row of the files. problem: why it cannot be used, with file and line; else None."""

    conversation: str
    source_id: str
    record: str | None
    topic: str
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One input file as the plan pins it."""

    path: str
    rows: int
    sha256: str


def survey(patterns: list[str], columns: Columns) -> list[SourceFile]:
    """The files behind paths or globs, sorted by path, with their row counts.

    InputError where one cannot be read or no row of all can be used; ConfigError where one lacks a column.
    """
    found: list[SourceFile] = []
    usable, problem = 0, ""
    for path in _expand(patterns):
        data = _bytes(path)
        rows = list(_rows(path, data, columns))
        found.append(SourceFile(path=path, rows=len(rows), sha256=sha256_hex(data)))
        usable += sum(1 for row in rows if row.problem is None)
        problem = problem or next((row.problem for row in rows if row.problem), "")
    if not usable:
        total = sum(file.rows for file in found)
        first = f"; {problem}" if problem else ""
        raise InputError(f"--conversations {' '.join(patterns)}: none of {total} rows in {len(found)} files can be used{first}")
    return found


def read(files: list[SourceFile], columns: Columns, start: int, stop: int) -> Iterator[tuple[int, ImportedRow]]:
    """Rows `start` to `stop` (exclusive) over all files with their numbers; InputError where a file changed since the plan."""
    first = 0
    for file in files:
        if first < stop and start < first + file.rows:
            data = _bytes(file.path)
            if sha256_hex(data) != file.sha256:
                raise InputError(f"{file.path}: changed since the run was planned; restore it or plan a new run")
            for number, row in enumerate(_rows(file.path, data, columns), start=first):
                if start <= number < stop:
                    yield number, row
        first += file.rows


def _expand(patterns: list[str]) -> list[str]:
    paths: set[str] = set()
    for pattern in patterns:
        try:
            filesystem, root = fsspec.core.url_to_fs(pattern)
            is_glob = any(sign in root for sign in "*?[") and not filesystem.exists(root)
            matches = filesystem.glob(root) if is_glob else [root]
            if filesystem.isdir(root):
                matches = filesystem.find(root)
            paths.update(filesystem.unstrip_protocol(match) for match in matches if _kind(match))
        except (ValueError, OSError) as error:
            raise InputError(f"--conversations {pattern}: {error}") from None
        if not matches:
            raise InputError(f"--conversations {pattern}: no such file")
        if not any(_kind(match) for match in matches):
            raise InputError(f"--conversations {pattern}: expected files ending in .csv, .jsonl or .parquet")
    return sorted(path.removeprefix("file://") for path in paths)


def _kind(path: str) -> str | None:
    return next((kind for kind in ("csv", "jsonl", "parquet") if path.lower().endswith(f".{kind}")), None)


def _bytes(path: str) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            data: bytes = file.read()
            return data
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None


def _rows(path: str, data: bytes, columns: Columns) -> Iterator[ImportedRow]:
    """Every row of one file, broken ones too, so that numbers never depend on what is in a row."""
    readers = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}
    for line, raw in readers[str(_kind(path))](path, data, columns):
        if isinstance(raw, str):
            yield ImportedRow(conversation="", source_id=f"{path}:{line}", record=None, topic="", problem=f"{path}:{line}: {raw}")
        else:
            yield _row(path, line, raw, columns)


def _row(path: str, line: int, raw: dict[str, Any], columns: Columns) -> ImportedRow:
    conversation = raw.get(columns.conversation)
    problem = None if isinstance(conversation, str) and conversation.strip() else f"{path}:{line}: no conversation text"
    record = raw.get(columns.record) if columns.record else None
    if isinstance(record, dict):
        record = json.dumps(record, ensure_ascii=False, default=str)
    return ImportedRow(
        conversation=conversation if isinstance(conversation, str) else "",
        source_id=str(raw[columns.id]) if columns.id and raw.get(columns.id) is not None else f"{path}:{line}",
        record=record if record is None or isinstance(record, str) else str(record),
        topic=str(raw.get(columns.topic) or "") if columns.topic else "",
        problem=problem,
    )


def _check_columns(path: str, found: list[str], columns: Columns) -> None:
    flags = {"conversation": columns.conversation, "id": columns.id, "record": columns.record, "topic": columns.topic}
    for flag, name in flags.items():
        if name is not None and name not in found:
            # Cut short: without a header line these are the first conversation's own words.
            shown = ", ".join(column[:30] for column in found[:20])
            raise ConfigError(f"--{flag}-column: got {name!r}, columns of {path}: {shown}")


def _csv(path: str, data: bytes, columns: Columns) -> Iterator[tuple[int, dict[str, Any] | str]]:
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(_text(path, data), newline=""))
    _check_columns(path, list(reader.fieldnames or []), columns)
    for row in reader:
        yield reader.line_num, row if None not in row else "more cells than the header has columns"


def _jsonl(path: str, data: bytes, columns: Columns) -> Iterator[tuple[int, dict[str, Any] | str]]:
    lines = enumerate(_text(path, data).split("\n"), start=1)
    rows = [(line, _json_object(text)) for line, text in lines if text.strip()]
    keys = dict.fromkeys(key for _, row in rows if row is not None for key in row)
    if keys:
        _check_columns(path, list(keys), columns)
    for line, row in rows:
        yield line, "not a JSON object" if row is None else row


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parquet(path: str, data: bytes, columns: Columns) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        table = pq.read_table(io.BytesIO(data))
        rows = table.to_pylist()
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file ({type(error).__name__})") from None
    _check_columns(path, table.column_names, columns)
    yield from enumerate(rows, start=1)


def _text(path: str, data: bytes) -> str:
    """UTF-8 text without its byte order mark; what is not UTF-8 is read as Windows-1252, as spreadsheets write it."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
