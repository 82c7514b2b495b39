"""Rows of Parquet files by a condition: what statistics rule out is not read, and no table is ever whole in memory.

For looking into a run, at the end or on its way: files are read as they are, not checked against a manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from medkd.errors import InputError
from medkd.store.files import Store

Row = dict[str, Any]

_ROWS_AT_ONCE = 256
_BYTES_AT_ONCE = 1 << 20
_ABOVE_ANY_TEXT = "\U0010ffff"


def scan(
    store: Store,
    paths: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    *,
    equal: Mapping[str, str] | None = None,
    beginning: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Rows of the files in their order, all columns of the schema or those named; a column that a file lacks is null.

    equal, beginning: columns of text with the value that a row must have there, or must begin with. InputError where a file is
    missing or damaged.
    """
    if not paths:
        return
    conditions = [pc.field(name) == value for name, value in (equal or {}).items()]
    for name, start in (beginning or {}).items():
        # As a range, because statistics answer it.
        conditions += [pc.field(name) >= start, pc.field(name) < start + _ABOVE_ANY_TEXT]
    wanted = None
    for condition in conditions:
        wanted = condition if wanted is None else wanted & condition
    try:
        table = ds.dataset(
            [store.full_path(path) for path in paths], schema=schema, format="parquet", filesystem=store.filesystem
        )
        for fragment in table.get_fragments():
            yield from _rows(fragment, schema, columns or schema.names, [*(equal or {}), *(beginning or {})], wanted)
    except FileNotFoundError:
        raise InputError(f"{store.url}: a table was removed while it was read; try again") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{store.url}/{paths[0].rpartition('/')[0]}: a table is damaged ({type(error).__name__})") from None


def _rows(
    fragment: Any, schema: pa.Schema, columns: Sequence[str], asked: Sequence[str], wanted: pc.Expression | None
) -> Iterator[Row]:
    """The wanted rows of one file."""
    # Not the fragment's own batches: for those a row group is decoded as a whole, and many files are one row group.
    groups = [group.id for part in fragment.split_by_row_group(wanted) for group in part.row_groups]
    if not groups:
        return
    file = pq.ParquetFile(fragment.open(), pre_buffer=False, buffer_size=_BYTES_AT_ONCE)
    needed = dict.fromkeys([*columns, *asked])
    there = [name for name in needed if name in file.schema_arrow.names]
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=there, use_threads=False):
        found = pa.Table.from_batches([batch])
        for name in needed:
            if name not in there:
                found = found.append_column(schema.field(name), pa.nulls(len(found), schema.field(name).type))
        yield from (found if wanted is None else found.filter(wanted)).select(list(columns)).to_pylist()
