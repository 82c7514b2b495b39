"""Parquet tables: their columns, and rows in and out. Equal rows give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medkd.store.files import Store
from medkd.store.manifests import FileEntry, entry, read_verified

Row = dict[str, Any]

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
        ("step", pa.string()),  # conversation or extraction
        ("repair", pa.int32()),
        ("outcome", pa.string()),  # reply, repair or reject
        ("reason", pa.string()),
        ("text", pa.string()),
        ("finish", pa.string()),
        ("served_model", pa.string()),
        ("request_id", pa.string()),
        ("fingerprint", pa.string()),
        ("attempts", pa.int32()),
        *_TOKEN_COUNTS,
        ("cost_usd", pa.float64()),
        ("possibly_usd", pa.float64()),  # of attempts whose outcome is unknown
        ("at", pa.string()),
    ]
)

DATASET_COLUMNS = pa.schema(
    [*SAMPLE_COLUMNS, ("conversation_sha256", pa.string()), ("held_out_topic", pa.bool_())]  # the latter: topic is only tested on
)

DUPLICATE_COLUMNS = pa.schema(
    [("sample_id", pa.string()), ("reason", pa.string()), ("kept_sample_id", pa.string()), ("similarity", pa.float64())]
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

PREDICTION_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("model", pa.string()),  # student, untrained, constant or lexicon
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
    try:
        table = pa.Table.from_pylist(list(rows), schema=columns)
    except UnicodeEncodeError:
        table = pa.Table.from_pylist([_encodable(row) for row in rows], schema=columns)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


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
