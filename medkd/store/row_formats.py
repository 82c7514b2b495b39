"""Rows of CSV, JSON lines and Parquet files as a stream that can begin at any row, in memory that does not grow with the file.

A row that is broken is a row all the same, with its line and what is wrong with it: numbers of rows never depend on what
stands in them.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from medkd.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW_BYTES = 4 << 20
"""A longer row is broken: 4 MiB are a hundred times the longest visit, and what an unclosed quote would swallow."""
_CHUNK_BYTES = 256 << 10
_BATCH_ROWS = 256
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in its file."""

    line: int
    """Where it starts, from 1; in Parquet its number."""
    offset: int
    """Byte of the (decompressed) file where it starts; in Parquet the number of rows before it."""
    values: dict[str, Any] | str
    """The cells by column, or what is wrong with the row."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin to read: at the file's first row, or at the row that a `RawRow` has named."""

    line: int = 1
    offset: int = 0


def read_csv(file: BinaryIO, path: str, wanted: Sequence[str], start: Start) -> Iterator[list[str] | RawRow]:
    """First the header as a list of names, then rows from `start` on."""
    csv.field_size_limit(1 << 30)
    feed = _Feed(file, Start())
    rows = csv.reader(feed)
    feed.begin_row()
    header = next(rows, [])
    yield header
    if start.offset:
        file.seek(start.offset)
        feed = _Feed(file, start)
        rows = csv.reader(feed)
    places = {name: len(header) - 1 - header[::-1].index(name) for name in wanted if name in header}
    while True:
        line, offset = feed.begin_row()
        try:
            cells = next(rows, None)
        except (csv.Error, _TooLongError):
            yield RawRow(line, offset, feed.give_up())
            continue
        if feed.ended_inside:
            yield RawRow(line, offset, feed.give_up())
        elif cells is None:
            return
        elif len(cells) > len(header):
            yield RawRow(line, offset, "more cells than the header has columns")
        elif cells:
            yield RawRow(line, offset, {name: cells[place] for name, place in places.items() if place < len(cells)})


def read_jsonl(file: BinaryIO, path: str, wanted: Sequence[str], start: Start) -> Iterator[list[str] | RawRow]:
    """Rows from `start` on; before a row with keys that were not met before, a list of its keys."""
    file.seek(start.offset)
    line, offset = start.line - 1, start.offset
    known: set[str] = set()
    for raw in _lines(file, universal=False):
        line += 1
        here, offset = offset, offset + len(raw)
        if len(raw) > MAX_ROW_BYTES:
            offset += raw.dropped if isinstance(raw, _LongLine) else 0
            yield RawRow(line, here, f"longer than {MAX_ROW_BYTES >> 20} MiB")
            continue
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.removeprefix(_BOM) if here == 0 else raw)
        except UnicodeDecodeError:
            yield RawRow(line, here, "not UTF-8 text")
            continue
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield RawRow(line, here, "not a JSON object")
            continue
        # As many keys as a person would read in an error message; files that use data as keys have no end of them.
        if len(known) < 100 and not known.issuperset(row):
            known.update(row)
            yield list(row)
        yield RawRow(line, here, {name: row[name] for name in wanted if name in row})


def read_parquet(file: BinaryIO, path: str, wanted: Sequence[str], start: Start) -> Iterator[list[str] | RawRow]:
    """First the names of all columns, then rows from `start` on; of the file only the wanted columns are read."""
    # Here and not above: it takes a third of a second to load, before a shard's first call.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without pre-buffering a row group is read page by page; many writers make one row group of a million rows.
        table = pq.ParquetFile(file, pre_buffer=False, buffer_size=_CHUNK_BYTES)
        yield list(table.schema_arrow.names)
        columns = [name for name in wanted if name in table.schema_arrow.names]
        number = 0
        for group in range(table.num_row_groups):
            size = table.metadata.row_group(group).num_rows
            if number + size <= start.offset:
                number += size
                continue
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                first, number = number, number + batch.num_rows
                if number > start.offset:
                    skip = max(0, start.offset - first)
                    for place, values in enumerate(_cells(batch.slice(skip)), start=first + skip):
                        yield RawRow(place + 1, place, values)
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a Parquet file, or a damaged one ({type(error).__name__}); restore it") from None


def _cells(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    # One cell of these rows is no text or no date: which one, and the others are fine.
    for row in range(batch.num_rows):
        try:
            yield {name: batch.column(name)[row].as_py() for name in batch.schema.names}
        except (ValueError, OverflowError) as error:
            yield f"a cell cannot be decoded ({type(error).__name__})"


def read_text(file: BinaryIO, path: str, wanted: Sequence[str], start: Start) -> Iterator[list[str] | RawRow]:
    """The whole file as one row, in the first of the wanted columns."""
    data = file.read(MAX_ROW_BYTES + 1)
    if len(data) > MAX_ROW_BYTES:
        yield RawRow(1, 0, f"longer than {MAX_ROW_BYTES >> 20} MiB")
        return
    try:
        yield RawRow(1, 0, {wanted[0]: data.decode("utf-8-sig")})
    except UnicodeDecodeError:
        yield RawRow(1, 0, "not UTF-8 text")


READERS = {"csv": read_csv, "jsonl": read_jsonl, "parquet": read_parquet, "txt": read_text}


class _TooLongError(Exception):
    """A row of a CSV file does not end where rows end."""


class _LongLine(bytes):
    """The start of a line longer than a row may be; `dropped` bytes more belong to it."""

    dropped = 0


def _lines(file: BinaryIO, universal: bool) -> Iterator[bytes]:
    """Lines with their ends: at `\\n` only, or also at `\\r` and `\\r\\n`. Never more than a row's bytes in memory."""
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        if len(rest) > MAX_ROW_BYTES:
            # Nobody will use this line; its length is still needed to know where the next one starts.
            line, rest = _end_of(file, rest, chunk, universal)
            yield line
            continue
        lines = (rest + chunk).splitlines(keepends=True) if universal else _split(rest + chunk)
        # A `\r` at the end of what is there may be half of a `\r\n`.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        yield from lines
    yield from rest.splitlines(keepends=True) if universal else _split(rest)


def _split(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _end_of(file: BinaryIO, start: bytes, chunk: bytes, universal: bool) -> tuple[bytes, bytes]:
    line = _LongLine(start)
    while chunk:
        ends = [place for place in (chunk.find(b"\n"), chunk.find(b"\r") if universal else -1) if place >= 0]
        if ends:
            end = min(ends) + 1
            line.dropped += end
            return line, chunk[end:]
        line.dropped += len(chunk)
        chunk = file.read(_CHUNK_BYTES)
    return line, b""


class _Feed:
    """Lines of a CSV file for `csv.reader`, with the place where each row starts, and a way back out of an unclosed quote."""

    def __init__(self, file: BinaryIO, start: Start) -> None:
        self._lines = _lines(file, universal=True)
        self._again: deque[bytes] = deque()
        self._row: list[bytes] = []
        self._bytes = 0
        self._line, self._offset = start.line, start.offset
        self.ended_inside = False
        """Whether the file ended within the row."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._again.popleft() if self._again else next(self._lines, None)
        if raw is None:
            self.ended_inside = bool(self._row)
            raise StopIteration
        self._row.append(raw)
        self._bytes += len(raw)
        if self._bytes > MAX_ROW_BYTES:
            raise _TooLongError
        if self._offset == 0 and len(self._row) == 1:
            raw = raw.removeprefix(_BOM)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            # As spreadsheets write it; bytes that Windows-1252 does not know are replaced.
            return raw.decode("cp1252", errors="replace")

    def begin_row(self) -> tuple[int, int]:
        """Line and byte at which the next row starts."""
        self._line += len(self._row)
        self._offset += self._bytes + sum(raw.dropped for raw in self._row if isinstance(raw, _LongLine))
        self._row, self._bytes, self.ended_inside = [], 0, False
        return self._line, self._offset

    def give_up(self) -> str:
        """Take the row's first line alone for broken, go on with the line behind it, and say what is wrong."""
        first, *others = self._row
        self._again.extendleft(reversed(others))
        self._row, self._bytes, self.ended_inside = [first], len(first), False
        return "a quote is never closed" if others else f"longer than {MAX_ROW_BYTES >> 20} MiB"
