"""Rows to Parquet and back."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.errors import InputError
from medkd.store import tables
from medkd.store.files import Store

COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("turns", pa.list_(pa.int32())),
        ("evidence", pa.list_(pa.struct([("field", pa.string()), ("turns", pa.list_(pa.int32()))]))),
        ("cost_usd", pa.float64()),
        ("valid", pa.bool_()),
    ]
)

_int32 = st.integers(-(2**31), 2**31 - 1)
_rows = st.lists(
    st.fixed_dictionaries(
        {
            "sample_id": st.none() | st.text(),
            "turns": st.none() | st.lists(_int32, max_size=3),
            "evidence": st.lists(st.fixed_dictionaries({"field": st.text(), "turns": st.lists(_int32, max_size=3)}), max_size=3),
            "cost_usd": st.none() | st.floats(allow_nan=False),
            "valid": st.booleans(),
        }
    ),
    max_size=10,
)


@given(_rows)
@settings(max_examples=40)
def test_any_rows_come_back_and_equal_rows_are_equal_bytes(rows: list[dict[str, Any]]) -> None:
    data = tables.encode(rows, COLUMNS)
    assert tables.decode(data) == rows
    assert tables.encode([dict(reversed(row.items())) for row in rows], COLUMNS) == data
    assert [set(row) for row in tables.decode(data, ["valid", "sample_id"])] == [{"valid", "sample_id"}] * len(rows)


def test_a_missing_key_is_null_and_an_unknown_one_in_any_row_an_error() -> None:
    assert tables.decode(tables.encode([{"sample_id": "1"}], COLUMNS))[0]["cost_usd"] is None
    with pytest.raises(KeyError, match="colour"):
        tables.encode([{"sample_id": "1"}, {"sample_id": "2", "colour": "red"}], COLUMNS)


def test_surrogates_without_a_partner_are_replaced_wherever_they_stand() -> None:
    row = {"sample_id": "a\ud83db \ud83d\ude00", "evidence": [{"field": "\udc00", "turns": [1]}], "turns": [1], "valid": True}
    found = tables.decode(tables.encode([row], COLUMNS))[0]
    assert found["sample_id"] == "a\ufffdb \U0001f600"
    assert found["evidence"] == [{"field": "\ufffd", "turns": [1]}]
    assert (found["turns"], found["valid"]) == ([1], True)


def test_tables_are_read_in_the_order_of_their_entries_and_only_as_they_were_written(store: Store) -> None:
    entries = [tables.write(store, f"part-{number}.parquet", [{"sample_id": str(number)}], COLUMNS) for number in range(3)]
    assert [entry.rows for entry in entries] == [1, 1, 1]
    assert [row["sample_id"] for row in tables.read(store, reversed(entries), ["sample_id"])] == ["2", "1", "0"]
    store.replace("part-1.parquet", tables.encode([{"sample_id": "9"}], COLUMNS))
    with pytest.raises(InputError, match=r"part-1\.parquet: differs from its manifest"):
        tables.read(store, entries)


def test_parts_hold_so_many_rows_and_do_not_depend_on_how_they_came(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS_IN_MEMORY", 4)
    rows = [{"sample_id": str(number), "turns": [number]} for number in range(25)]
    writer = tables.PartWriter(store, "part-{}.parquet".format, COLUMNS, 10)
    for row in rows:
        writer.add(row)
    files = writer.close()
    assert [(file.path, file.rows) for file in files] == [("part-0.parquet", 10), ("part-1.parquet", 10), ("part-2.parquet", 5)]
    assert [row["sample_id"] for row in tables.stream(store, files, ["sample_id"])] == [row["sample_id"] for row in rows]
    assert list(tables.stream(store, files)) == tables.read(store, files)


@pytest.mark.parametrize("rows", [0, 3, 6])
def test_there_is_one_empty_part_where_there_are_no_rows_and_none_after_a_full_one(store: Store, rows: int) -> None:
    writer = tables.PartWriter(store, "part-{}.parquet".format, COLUMNS, 3)
    for number in range(rows):
        writer.add({"sample_id": str(number)})
    assert [file.rows for file in writer.close()] == ([3] * (rows // 3) or [0])


def test_a_stream_names_a_file_that_differs_from_its_manifest(store: Store) -> None:
    entry = tables.write(store, "rows.parquet", [{"sample_id": "1"}], COLUMNS)
    store.replace("rows.parquet", b"torn")
    with pytest.raises(InputError, match="differs from its manifest"):
        list(tables.stream(store, [entry]))
