"""Rows by a condition: the right ones, in order, and nothing read that statistics rule out."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medkd.errors import InputError
from medkd.store import scans
from medkd.store.files import Store, open_store

SCHEMA = pa.schema([("sample_id", pa.string()), ("topic", pa.string()), ("number", pa.int64()), ("later", pa.float64())])


def table(ids: range, rows_per_group: int = 1000) -> bytes:
    """A file of before the column `later` came."""
    rows = [{"sample_id": f"{number:09d}", "topic": ("asthma", "gout")[number % 2], "number": number} for number in ids]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA.remove(3)), sink, row_group_size=rows_per_group)
    return sink.getvalue()


def test_rows_come_in_the_order_of_the_files_with_null_for_a_column_that_they_lack(store: Store) -> None:
    store.replace("one.parquet", table(range(10, 20)))
    store.replace("other.parquet", table(range(10)))
    paths = ["one.parquet", "other.parquet"]
    assert [row["number"] for row in scans.scan(store, paths, SCHEMA)] == [*range(10, 20), *range(10)]
    (row,) = scans.scan(store, paths, SCHEMA, equal={"sample_id": "000000007"})
    assert row == {"sample_id": "000000007", "topic": "gout", "number": 7, "later": None}
    found = scans.scan(store, paths, SCHEMA, ("number",), equal={"topic": "asthma"}, beginning={"sample_id": "00000001"})
    assert list(found) == [{"number": number} for number in (10, 12, 14, 16, 18)]
    assert list(scans.scan(store, [], SCHEMA)) == []


def test_a_row_group_that_cannot_hold_the_sample_is_not_read(store: Store) -> None:
    data = bytearray(table(range(3000)))
    groups = pq.ParquetFile(io.BytesIO(bytes(data))).metadata
    for group in (0, 2):
        for column in range(groups.num_columns):
            chunk = groups.row_group(group).column(column)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    store.replace("broken.parquet", bytes(data))
    assert [row["number"] for row in scans.scan(store, ["broken.parquet"], SCHEMA, equal={"sample_id": "000001500"})] == [1500]
    with pytest.raises((InputError, OSError)):
        list(scans.scan(store, ["broken.parquet"], SCHEMA, equal={"sample_id": "000000005"}))


def test_a_missing_or_damaged_table_is_an_input_error(store: Store) -> None:
    with pytest.raises(InputError, match="removed while it was read"):
        list(scans.scan(store, ["gone.parquet"], SCHEMA))
    store.replace("folder/torn.parquet", b"PAR1 torn")
    with pytest.raises(InputError, match="folder: a table is damaged"):
        list(scans.scan(store, ["folder/torn.parquet"], SCHEMA))


def test_an_archive_can_be_read_and_not_written(tmp_path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        archive.writestr("run/one.parquet", table(range(5)))
    store = open_store(f"zip://run::{tmp_path / 'run.zip'}", read_only=True)
    assert [file.path for file in store.list_files()] == ["one.parquet"]
    assert [row["number"] for row in scans.scan(store, ["one.parquet"], SCHEMA, equal={"topic": "gout"})] == [1, 3]
    with pytest.raises(NotImplementedError):
        store.create("two", b"")
