"""Parquet tables: their columns, and rows in and out. Equal rows give equal bytes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medkd.store.files import Store
from medkd.store.manifests import FileEntry, entry, read_verified

# The library's own allocator keeps some 25 MB of what it was ever given; a shard has an hour of small tables.
pa.set_memory_pool(pa.system_memory_pool())

Row = dict[str, Any]

_ROWS_IN_MEMORY = 512
"""Some 3 MB as Python objects, for conversations of usual length; a shard writes three tables while its calls are under way."""
_SMALL_FILE = 1 << 20

_WHOSE = ("sample_id", "topic", "mood", "source", "source_id", "teacher", "variation", "attempts")
_TOKEN_COUNTS = [(f"{kind}_tokens", pa.int64()) for kind in ("prompt", "cached", "completion", "reasoning")]

SAMPLE_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),  # position in the plan, sortable
        ("topic", pa.string()),
        ("mood", pa.string()),
        ("instruction", pa.string()),
        ("input", pa.string()),  # the conversation
        ("output", pa.string()),  # the record as compact JSON
        ("evidence", pa.list_(pa.struct([("field", pa.string()), ("turns", pa.list_(pa.int32()))]))),  # turns count from 0
        (
            "unsupported",
            pa.list_(pa.struct([("field", pa.string()), ("value", pa.string())])),
        ),  # flagged by the checker
        ("judge", pa.string()),  # the model that extracted it a second time; null: none, or no valid record came of it
        ("disagreement", pa.list_(pa.string())),  # fields in which that record differs; null as above
        ("source", pa.string()),  # generated, or imported (the conversation is the team's own)
        ("source_id", pa.string()),  # the conversation's id where it was imported from; else null
        ("reference", pa.string()),  # who wrote `output`: teacher, or human (an imported label)
        ("gold", pa.string()),  # a record that came along with the conversation and is known to be right; else null
        ("teacher", pa.string()),  # name in the configuration
        ("served_model", pa.string()),  # as the reply names it
        ("prompt_version", pa.int32()),
        ("variation", pa.int32()),  # 0-3: which try of this sample
        ("attempts", pa.int32()),  # requests sent, retries and repairs included
        *_TOKEN_COUNTS,
        ("cost_usd", pa.float64()),
        ("created_at", pa.string()),  # RFC 3339, of the last reply
    ]
)

REJECTED_COLUMNS = pa.schema(
    [
        *[SAMPLE_COLUMNS.field(name) for name in _WHOSE],
        ("reason", pa.string()),  # one word, see quality.schema and stages.generate
        ("detail", pa.string()),  # what exactly, never shown in logs
        ("conversation", pa.string()),  # null where there was none
        ("raw_text", pa.string()),  # the last reply
        ("cost_usd", pa.float64()),
    ]
)

CALL_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("sample_id", pa.string()),
        ("variation", pa.int32()),
        ("step", pa.string()),  # conversation, extraction or judge
        ("repair", pa.int32()),
        ("outcome", pa.string()),  # reply, repair or reject
        ("reason", pa.string()),
        ("text", pa.string()),
        ("finish", pa.string()),
        ("served_model", pa.string()),
        ("request_id", pa.string()),
        ("fingerprint", pa.string()),
        ("attempts", pa.int32()),
        ("seconds", pa.float64()),  # that its attempts were with the teacher; null: of a batch, or not measured
        *_TOKEN_COUNTS,
        ("cost_usd", pa.float64()),
        ("possibly_usd", pa.float64()),  # of attempts whose outcome is unknown
        ("at", pa.string()),
    ]
)

DATASET_COLUMNS = pa.schema(
    [
        *SAMPLE_COLUMNS,
        ("conversation_sha256", pa.string()),
        ("held_out_topic", pa.bool_()),  # topic is only tested on
        # What a person made of the row: confirmed, corrected or admitted, see stages.reviewed; else null.
        ("review", pa.string()),
    ]
)

DUPLICATE_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        # exact, near, leak (near to a row that is tested or validated on), disputed by its judge, or wrong, as a person says
        ("reason", pa.string()),
        ("kept_sample_id", pa.string()),  # null: disputed or wrong
        ("similarity", pa.float64()),  # of a disputed row the share of fields that agree
    ]
)

TOKEN_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("window", pa.int32()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),  # -100 where no loss is taken
        ("length", pa.int32()),
    ]
)

TOKEN_INDEX = pa.schema(
    [
        ("length", pa.int32()),
        ("answer_length", pa.int32()),
        ("size", pa.int32()),  # what the row takes of a pass: with the answer, where that is not part of the input
    ]
)

PREDICTION_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("model", pa.string()),  # student, untrained, constant, lexicon, teacher, few_shot_student or few_shot_teacher
        ("raw_text", pa.string()),
        ("record", pa.string()),  # compact JSON; null where raw_text is not valid
        ("gold", pa.string()),  # the reference record
        ("gold_source", pa.string()),  # human, teacher or simulator
        ("valid_json", pa.bool_()),
        ("valid_schema", pa.bool_()),
        ("windows", pa.int32()),
        ("truncated", pa.bool_()),
        ("mean_logprob", pa.float64()),
    ]
)


def encode(rows: Sequence[Row], columns: pa.Schema) -> bytes:
    """Parquet bytes of the rows; a missing key becomes null, an unknown key is an error.

    Surrogates without a partner, which JSON can carry and Parquet's UTF-8 cannot, are replaced.
    """
    unknown = {name for row in rows for name in row} - set(columns.names)
    if unknown:
        raise KeyError(f"columns not in the schema: {sorted(unknown)}")
    sink = io.BytesIO()
    pq.write_table(_table(rows, columns), sink, compression="zstd")
    return sink.getvalue()


def _table(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    try:
        return pa.Table.from_pylist(list(rows), schema=columns)
    except UnicodeEncodeError:
        return pa.Table.from_pylist([_encodable(row) for row in rows], schema=columns)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: _encodable(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(member) for member in value]
    return value


def decode(data: bytes, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of a Parquet file, all columns or only those named."""
    rows: list[Row] = pq.read_table(io.BytesIO(data), columns=list(columns) if columns else None).to_pylist()
    return rows


def write(store: Store, path: str, rows: Sequence[Row], columns: pa.Schema) -> FileEntry:
    """Write rows as one Parquet file; returns its manifest entry."""
    data = encode(rows, columns)
    store.replace(path, data)
    return entry(path, data, len(rows))


def read(store: Store, files: Iterable[FileEntry], columns: Sequence[str] | None = None) -> list[Row]:
    """All rows of a manifest's files, in their order; InputError where a file differs from its manifest."""
    return [row for file in files for row in decode(read_verified(store, file), columns)]


def stream(store: Store, files: Iterable[FileEntry], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """As `read`, some hundred rows in memory at a time beside one file's bytes."""
    for file in files:
        parquet = pq.ParquetFile(io.BytesIO(read_verified(store, file)))
        for batch in parquet.iter_batches(_ROWS_IN_MEMORY, columns=list(columns) if columns else None):
            yield from batch.to_pylist()


class PartWriter:
    """Writes any number of rows as numbered Parquet files, some hundred rows in memory at a time; a file that is not whole
    yet grows in this machine's temporary folder.

    path_of: the path of part 0, 1, ... rows_per_file: None for a single file. Equal rows give equal bytes, however they come; no
    rows at all are one empty file.
    """

    def __init__(self, store: Store, path_of: Callable[[int], str], columns: pa.Schema, rows_per_file: int | None) -> None:
        self._store, self._path_of, self._columns, self._rows_per_file = store, path_of, columns, rows_per_file
        self._waiting: list[Row] = []
        self._files: list[FileEntry] = []
        self._num_rows = 0
        self._open()

    def add(self, row: Row) -> None:
        """One more row; a missing key becomes null."""
        self._waiting.append(row)
        if len(self._waiting) == _ROWS_IN_MEMORY:
            self._flush()
        if self._num_rows + len(self._waiting) == self._rows_per_file:
            self._end_file()
            self._open()

    def close(self) -> list[FileEntry]:
        """The files that were written."""
        if self._num_rows or self._waiting or not self._files:
            self._end_file()
        return self._files

    def _open(self) -> None:
        # On a disk once it is more than small: several writers are open at once, each with a file that grows.
        self._sink = tempfile.SpooledTemporaryFile(_SMALL_FILE)  # noqa: SIM115 - closed with its file
        self._writer = pq.ParquetWriter(self._sink, self._columns, compression="zstd")
        self._num_rows = 0

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(_table(self._waiting, self._columns))
            self._num_rows += len(self._waiting)
            self._waiting = []

    def _end_file(self) -> None:
        self._flush()
        self._writer.close()
        self._sink.seek(0)
        path, data = self._path_of(len(self._files)), self._sink.read()
        self._sink.close()
        self._store.replace(path, data)
        self._files.append(entry(path, data, self._num_rows))
        self._num_rows = 0
