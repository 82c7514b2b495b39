"""Existing conversations as an input: CSV, JSON lines or Parquet files at any path or URL, in one fixed order.

Row numbers count over all files sorted by path, so the order in which files are named changes nothing. Stage plan reads every
file once and notes where its blocks of rows start and what their content hashes to; a shard then reads the blocks that hold
its rows and no others, and notices a change of what it reads.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from medkd.errors import ConfigError, InputError
from medkd.samples import sha256_hex
from medkd.store import source_files
from medkd.store.row_formats import READERS, RawRow, Start
from medkd.store.source_files import Options, kind_of, opened
from medkd.telemetry import event

BLOCK_ROWS = 1000
BLOCK_BYTES = 4 << 20
"""A block ends with the row that reaches either: what a reader holds until it knows that the block is unchanged."""
_PROGRESS_SECONDS = 10.0
_NO_OPTIONS: Mapping[str, Mapping[str, Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of the files hold what; None: there is no such column."""

    conversation: str = "conversation"
    id: str | None = None
    record: str | None = None
    """A record that somebody wrote: it becomes the sample's, and no teacher is asked."""
    topic: str | None = None
    gold: str | None = None
    """A record that is known to be right, kept beside the teacher's: what the teacher and the student are scored on."""

    def by_flag(self) -> dict[str, str]:
        """The columns there are, by the flag that names each."""
        named = {"conversation": self.conversation, "id": self.id, "record": self.record, "topic": self.topic, "gold": self.gold}
        return {flag: name for flag, name in named.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class ImportedRow:
    """One row of the files. problem: why it cannot be used, with file and line; else None."""

    conversation: str
    source_id: str
    record: str | None
    topic: str
    gold: str | None = None
    place: str = ""
    """File and line."""
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive rows of a file: how many, where the first one starts, and the hash of what they hold."""

    rows: int
    line: int
    offset: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One input file as the plan pins it."""

    path: str
    rows: int
    sha256: str
    """Of its rows in the columns that are used."""
    conversation_bytes: int = 0
    """Of all conversations together, as a request carries them."""
    blocks: tuple[Block, ...] = ()


def survey(patterns: list[str], columns: Columns, options: Options = _NO_OPTIONS) -> list[SourceFile]:
    """The files behind paths or globs, sorted by path, with their row counts.

    InputError where one cannot be read or no row of all can be used; ConfigError where one lacks a column.
    """
    count = _Count()
    files = [_survey_file(path, columns, options, count) for path in source_files.expand(patterns, options)]
    if not count.usable:
        first = f"; {count.problem}" if count.problem else ""
        raise InputError(
            f"--conversations {' '.join(patterns)}: none of {count.rows} rows in {len(files)} files can be used{first}"
        )
    return files


def read(
    files: list[SourceFile], columns: Columns, start: int, stop: int, options: Options = _NO_OPTIONS
) -> Iterator[tuple[int, ImportedRow]]:
    """Rows `start` to `stop` (exclusive) over all files with their numbers; InputError where one changed since the plan."""
    first = 0
    for file in files:
        if first < stop and start < first + file.rows:
            yield from _read_part(file, columns, first, start, stop, options)
        first += file.rows


def stream(
    patterns: list[str], columns: Columns, options: Options = _NO_OPTIONS, *, flag: str = "--conversations"
) -> Iterator[ImportedRow]:
    """All rows behind paths or globs, read once and in the order of the files' paths; a `.txt` file is one conversation.

    InputError at once where there is none, and later where a file cannot be read; ConfigError where one lacks a column.
    """
    paths = source_files.expand(patterns, options, flag=flag, kinds=source_files.WITH_TEXTS)
    return (row for path in paths for row in _stream_file(path, columns, options))


def _stream_file(path: str, columns: Columns, options: Options) -> Iterator[ImportedRow]:
    if kind_of(path) == "txt":
        texts = _raw_rows(path, Columns(conversation=columns.conversation), Start(), options)
        yield from (replace(_row(path, raw, columns), source_id=path) for raw in texts if not isinstance(raw, list))
        return
    names: list[str] = []
    for raw in _raw_rows(path, columns, Start(), options):
        if not isinstance(raw, list):
            yield _row(path, raw, columns)
            continue
        names += [name for name in raw if name not in names]
        if kind_of(path) != "jsonl":
            _check_columns(path, names, columns)
    # As in a survey: keys of later JSON lines may differ from those of the first.
    if names:
        _check_columns(path, names, columns)


class _Count:
    """What a survey has seen so far."""

    def __init__(self) -> None:
        self.rows = self.usable = 0
        self.problem = ""
        self._said = time.monotonic()

    def add(self, row: ImportedRow) -> None:
        self.rows += 1
        if row.problem is None:
            self.usable += 1
        elif not self.problem:
            self.problem = row.problem
        if self.rows % 1000 == 0 and time.monotonic() - self._said > _PROGRESS_SECONDS:
            self._said = time.monotonic()
            event("reading conversations", rows=self.rows, broken=self.rows - self.usable)


class _BlockHash:
    """Rows of a block as they come, until it is full."""

    def __init__(self, first: RawRow) -> None:
        self.first = first
        self.rows = self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, row: ImportedRow) -> None:
        values = [row.conversation, row.source_id, row.record, row.topic, row.gold, row.problem]
        text = json.dumps(values).encode()
        self._hash.update(text + b"\n")
        self.rows += 1
        self.bytes += len(text)

    @property
    def full(self) -> bool:
        return self.rows >= BLOCK_ROWS or self.bytes >= BLOCK_BYTES

    def block(self) -> Block:
        return Block(rows=self.rows, line=self.first.line, offset=self.first.offset, sha256=self._hash.hexdigest())


def _survey_file(path: str, columns: Columns, options: Options, count: _Count) -> SourceFile:
    blocks: list[Block] = []
    open_block: _BlockHash | None = None
    total = 0
    names: list[str] = []
    for raw in _raw_rows(path, columns, Start(), options):
        if isinstance(raw, list):
            names += [name for name in raw if name not in names]
            # Keys of later JSON lines may differ from those of the first: their check waits for the end.
            if kind_of(path) != "jsonl":
                _check_columns(path, names, columns)
            continue
        row = _row(path, raw, columns)
        count.add(row)
        total += len(json.dumps(row.conversation))
        open_block = open_block or _BlockHash(raw)
        open_block.add(row)
        if open_block.full:
            blocks.append(open_block.block())
            open_block = None
    if open_block:
        blocks.append(open_block.block())
    if names:
        _check_columns(path, names, columns)
    together = sha256_hex("".join(block.sha256 for block in blocks))
    return SourceFile(
        path=path,
        rows=sum(block.rows for block in blocks),
        sha256=together,
        conversation_bytes=total,
        blocks=tuple(blocks),
    )


def _read_part(
    file: SourceFile, columns: Columns, first: int, start: int, stop: int, options: Options
) -> Iterator[tuple[int, ImportedRow]]:
    """Those rows of a file, whose own first row has the number `first`, that lie in the range."""
    if file.rows != sum(block.rows for block in file.blocks):
        raise ConfigError(f"{file.path}: planned by another version of medkd; plan a new run")
    blocks: list[tuple[int, Block]] = []
    for block in file.blocks:
        if first < stop and start < first + block.rows:
            blocks.append((first, block))
        first += block.rows
    if not blocks:
        return
    begin = Start(line=blocks[0][1].line, offset=blocks[0][1].offset)
    rows = (raw for raw in _raw_rows(file.path, columns, begin, options) if not isinstance(raw, list))
    for number, block in blocks:
        found: list[ImportedRow] = []
        check: _BlockHash | None = None
        while len(found) < block.rows and (raw := next(rows, None)) is not None:
            check = check or _BlockHash(raw)
            found.append(_row(file.path, raw, columns))
            check.add(found[-1])
        more = block is file.blocks[-1] and next(rows, None) is not None
        if check is None or check.block() != block or more:
            raise InputError(f"{file.path}: changed since the run was planned; restore it or plan a new run")
        for place, row in enumerate(found, start=number):
            if start <= place < stop:
                yield place, row


def _raw_rows(path: str, columns: Columns, start: Start, options: Options) -> Iterator[list[str] | RawRow]:
    with opened(path, options) as file:
        yield from READERS[str(kind_of(path))](file, path, list(dict.fromkeys(columns.by_flag().values())), start)


def _row(path: str, raw: RawRow, columns: Columns) -> ImportedRow:
    """Every row, broken ones too, so that numbers never depend on what is in a row."""
    place = f"{path}:{raw.line}"
    if isinstance(raw.values, str):
        return ImportedRow(conversation="", source_id=place, record=None, topic="", place=place, problem=f"{place}: {raw.values}")
    values = raw.values
    conversation = values.get(columns.conversation)
    record = _record_text(values.get(columns.record)) if columns.record else None
    problem = None
    if not isinstance(conversation, str) or not conversation.strip():
        problem = f"{place}: no conversation text"
    elif columns.record and record is None:
        problem = f"{place}: no record"
    source_id = values.get(columns.id) if columns.id else None
    return ImportedRow(
        conversation=conversation if isinstance(conversation, str) else "",
        source_id=place if source_id is None or source_id == "" else str(source_id),
        record=record,
        topic=str(values.get(columns.topic) or "") if columns.topic else "",
        gold=_record_text(values.get(columns.gold)) if columns.gold else None,
        place=place,
        problem=problem,
    )


def _record_text(value: Any) -> str | None:
    """A record as JSON text; None for an empty cell."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if isinstance(value, str) else str(value)


def _check_columns(path: str, found: list[str], columns: Columns) -> None:
    for flag, name in columns.by_flag().items():
        if name not in found:
            # Cut short: without a header line these are the first conversation's own words.
            shown = ", ".join(column[:30] for column in found[:20])
            raise ConfigError(f"--{flag}-column: got {name!r}, columns of {path}: {shown}")
