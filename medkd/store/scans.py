"""Rows of Parquet files by a condition: what statistics rule out is not read, and no table is ever whole in memory.

For looking into a run, at the end or on its way: files are read as they are, not checked against a manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

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
    # Row groups are read in pieces, in one thread: readers ahead of the rows that are wanted would hold whole groups.
    options = ds.ParquetFragmentScanOptions(use_buffered_stream=True, buffer_size=_BYTES_AT_ONCE, pre_buffer=False)
    try:
        table = ds.dataset(
            [store.full_path(path) for path in paths], schema=schema, format="parquet", filesystem=store.filesystem
        )
        for batch in table.to_batches(
            columns=list(columns) if columns else None,
            filter=wanted,
            batch_size=_ROWS_AT_ONCE,
            batch_readahead=0,
            fragment_readahead=0,
            fragment_scan_options=options,
            use_threads=False,
        ):
            yield from batch.to_pylist()
    except FileNotFoundError:
        raise InputError(f"{store.url}: a table was removed while it was read; try again") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{store.url}/{paths[0].rpartition('/')[0]}: a table is damaged ({type(error).__name__})") from None
