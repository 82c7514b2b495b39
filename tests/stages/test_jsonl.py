"""Rows of other tools: in with every mistake named by its line, out whole."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkd.errors import ConfigError, InputError
from medkd.records import PATIENT_RECORD
from medkd.samples import INSTRUCTION
from medkd.stages import jsonl
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from tests.quality.examples import CONVERSATION, RECORD

ROW = {"instruction": "Extract.", "input": CONVERSATION, "output": PATIENT_RECORD.canonical(RECORD)}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


# --- in ---------------------------------------------------------------------------------------------------------------


def test_a_row_becomes_a_sample_whose_record_somebody_else_wrote(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [ROW, {"input": CONVERSATION, "output": RECORD}])
    (first, second), bad = jsonl.read(path, PATIENT_RECORD)
    assert not bad
    assert (first["input"], first["output"]) == (CONVERSATION, ROW["output"])
    assert (first["instruction"], second["instruction"]) == ("Extract.", INSTRUCTION)
    assert second["output"] == first["output"], "a record as an object is the same record"
    assert [row["sample_id"] for row in (first, second)] == ["000000000", "000000001"]
    assert [row["source_id"] for row in (first, second)] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert tables.decode(tables.encode([first, second], tables.SAMPLE_COLUMNS))[1]["source"] == "imported"


def test_every_bad_line_is_told_with_its_number_and_no_text_of_a_patient(tmp_path: Path) -> None:
    bad_lines = [
        '{"input": ',
        "[1]",
        {"output": RECORD},
        {"input": "  ", "output": RECORD},
        {"input": CONVERSATION},
        {"input": CONVERSATION, "output": 5},
        {"input": CONVERSATION, "output": '{"patient_details": "Ms. Clarke"}'},
        {"input": CONVERSATION, "output": RECORD, "instruction": ["Extract."]},
        "[" * 100_000,
    ]
    path = write_lines(tmp_path / "rows.jsonl", [ROW, "", *bad_lines, ROW])
    good, bad = jsonl.read(path, PATIENT_RECORD)
    assert [row["source_id"] for row in good] == ["rows.jsonl:1", "rows.jsonl:12"]
    assert [row["sample_id"] for row in good] == ["000000000", "000000001"]
    assert [(row.line, row.reason) for row in bad] == [
        (3, "not JSON at column 11"),
        (4, "not a JSON object"),
        (5, "input: expected the conversation as text"),
        (6, "input: expected the conversation as text"),
        (7, "output: expected the record as JSON text"),
        (8, "output: expected the record as JSON text"),
        (9, "output: wrong_shape"),
        (10, "instruction: expected text"),
        (11, "nested too deeply"),
    ]


def test_a_file_without_one_usable_row_is_an_input_error_with_the_first_reason(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", ["", "{}", "{}"])
    with pytest.raises(InputError, match=r"rows\.jsonl: none of 2 rows is usable; line 2: input: expected"):
        jsonl.read(path, PATIENT_RECORD)
    path.write_text("")
    with pytest.raises(InputError, match="none of 0 rows is usable"):
        jsonl.read(path, PATIENT_RECORD)


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read"):
        jsonl.read(tmp_path / "absent.jsonl", PATIENT_RECORD)
    (tmp_path / "latin.jsonl").write_bytes(b'{"input": "\xe4"}\n')
    with pytest.raises(InputError, match=r"latin\.jsonl: cannot be read as UTF-8 text"):
        jsonl.read(tmp_path / "latin.jsonl", PATIENT_RECORD)


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_bring_anything_but_rows_or_an_input_error(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(ROW).encode() + b"\n" + garbage)
    try:
        good, _ = jsonl.read(path, PATIENT_RECORD)
    except InputError as error:
        assert "rows.jsonl" in str(error)
    else:
        assert good


# --- out --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.fixed_dictionaries({name: st.text() for name in jsonl.COLUMNS}), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_rows_are_written_one_to_a_line_whatever_their_text(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    target = tmp_path / "out" / "rows.jsonl"
    assert jsonl.write([{**row, "sample_id": "x"} for row in rows], target) == len(rows)
    assert [json.loads(line) for line in target.read_bytes().decode().split("\n")[:-1]] == rows
    assert [path.name for path in target.parent.iterdir()] == ["rows.jsonl"]


def test_what_fails_half_way_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    target = write_lines(tmp_path / "rows.jsonl", [ROW])
    before = target.read_bytes()

    def failing() -> Any:
        yield ROW
        raise InputError("a shard is torn")

    with pytest.raises(InputError):
        jsonl.write(failing(), target)
    assert target.read_bytes() == before


def finished_shard(store: Store, shard: int, ids: list[str]) -> None:
    rows = [{**ROW, "sample_id": name, "topic": "gout"} for name in ids]
    file = tables.write(store, layout.shard_file(shard, "samples.parquet"), rows, tables.SAMPLE_COLUMNS)
    rejected = tables.write(store, layout.shard_file(shard, "rejected.parquet"), [], tables.REJECTED_COLUMNS)
    manifest = Manifest(stage="generate", plan_hash="p", config_hash="c", shard=shard, files=(file, rejected))
    manifests.write(store, layout.shard_file(shard, "manifest.json"), manifest)


def test_without_a_data_set_the_accepted_rows_are_those_of_finished_shards(store: Store) -> None:
    finished_shard(store, 2, ["000000005"])
    finished_shard(store, 0, ["000000000", "000000001"])
    store.replace(layout.shard_file(1, "samples.parquet"), b"not finished")
    assert [row["sample_id"] for row in jsonl.accepted_rows(store)] == ["000000000", "000000001", "000000005"]


def test_with_a_data_set_the_accepted_rows_are_its_rows_in_sample_order(store: Store) -> None:
    finished_shard(store, 0, ["000000000", "000000001", "000000002"])
    files = [
        tables.write(store, layout.dataset_part(split, 0), [{**ROW, "sample_id": name}], tables.DATASET_COLUMNS)
        for split, name in (("train", "000000002"), ("test", "000000000"))
    ]
    rejected = tables.write(store, f"{layout.DATASET}/rejected.parquet", [], tables.DUPLICATE_COLUMNS)
    manifest = Manifest(stage="prepare", plan_hash="p", config_hash="c", files=(*files, rejected))
    manifests.write(store, layout.DATASET_MANIFEST, manifest)
    assert [row["sample_id"] for row in jsonl.accepted_rows(store)] == ["000000000", "000000002"]


def test_a_prefix_without_a_finished_shard_says_what_to_run(store: Store) -> None:
    with pytest.raises(ConfigError, match="no finished shard under this prefix; run stage generate first"):
        jsonl.accepted_rows(store)


def test_rows_that_went_out_come_in_again(store: Store, tmp_path: Path) -> None:
    finished_shard(store, 0, ["000000000", "000000001"])
    target = tmp_path / f"{uuid.uuid4().hex}.jsonl"
    assert jsonl.write(jsonl.accepted_rows(store), target) == 2
    rows, bad = jsonl.read(target, PATIENT_RECORD)
    assert not bad
    assert [{name: row[name] for name in jsonl.COLUMNS} for row in rows] == [ROW, ROW]
