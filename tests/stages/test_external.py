"""Conversations from elsewhere with known records: which rows make a set, and from where their records may come. A student on
such a set: tests/student/test_training.py, tests/test_local_run.py; on real dialogues: tests/stages/test_real_dialogues.py."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medkd.commands.flags import build_parser
from medkd.errors import InputError, UsageError
from medkd.records import PATIENT_RECORD
from medkd.samples import conversation_sha256
from medkd.stages.external import read_set, set_name
from medkd.store import gold_files
from medkd.store.conversations import Columns, ImportedRow, stream
from medkd.store.gold_files import Gold
from tests.quality.examples import RECORD

TEXT = "Doctor: Hello.\nPatient: A cough, for three days."
OTHER = "Doctor: And you?\nPatient: Fine."


def rows_of(path: Path, **columns: str) -> Iterator[ImportedRow]:
    return stream([str(path)], Columns(**columns))


def test_a_column_of_records_makes_a_set_and_says_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "visits.csv"
    known = PATIENT_RECORD.canonical(RECORD)
    cells = [("a", TEXT, known), ("b", OTHER, ""), ("c", OTHER, '{"patient_details": 1}'), ("d", "", known)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "conversation", "truth"), *cells])
    found = read_set("visits", rows_of(path, id="id", gold="truth"), Gold(), "human", PATIENT_RECORD)
    assert [row["sample_id"] for row in found.rows] == ["a"]
    assert [(one.record, one.source) for one in found.references] == [(RECORD, "human")]
    assert found.left_out == {"no_gold": 1, "invalid_gold": 1, "unusable_row": 1}
    again = read_set("visits", rows_of(path, id="id", gold="truth"), Gold(), "teacher", PATIENT_RECORD)
    assert again.hash == found.hash


def test_a_set_without_any_known_record_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "visits.jsonl"
    path.write_text(json.dumps({"conversation": TEXT, "truth": '{"a": 1}'}) + "\n")
    with pytest.raises(InputError, match=r"no conversation with a known record \(1 invalid_gold\); .*visits.jsonl:1"):
        read_set("visits", rows_of(path, gold="truth"), Gold(), "human", PATIENT_RECORD)


def as_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def as_jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps({**row, "record": json.loads(row["record"])}) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("gold.csv", as_csv),
        ("gold.parquet", as_parquet),
        ("gold.jsonl", as_jsonl),
        ("gold.jsonl.gz", lambda rows: gzip.compress(as_jsonl(rows))),
        ("gold", as_jsonl),
    ],
)
@pytest.mark.parametrize("key", ["conversation_sha256", "id"])
def test_records_may_lie_in_a_file_of_their_own(name: str, write: object, key: str, tmp_path: Path) -> None:
    keys = {"conversation_sha256": conversation_sha256(TEXT), "id": "7"}
    path = tmp_path / name
    path.write_bytes(write([{key: keys[key], "record": PATIENT_RECORD.canonical(RECORD)}]))  # type: ignore[operator]
    gold = gold_files.read(f"file://{path}")
    visits = tmp_path / "visits.jsonl"
    visits.write_text(json.dumps({"n": 7, "conversation": TEXT}) + "\n" + json.dumps({"n": 8, "conversation": OTHER}) + "\n")
    found = read_set("visits", rows_of(visits, id="n"), gold, "human", PATIENT_RECORD)
    assert [row["input"] for row in found.rows] == [TEXT] and found.left_out == {"no_gold": 1}
    assert found.references[0].record == RECORD


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"record": {}}', "expected conversation_sha256 or id"),
        ('{"id": "1", "record": "not json"}', "its record is not JSON"),
        ('{"id": "1", "record": [1]}', "expected conversation_sha256 or id, and record"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_row_that_is_no_gold_is_named_and_not_shown(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text('{"id": "0", "record": {}}\n' + line + "\n")
    with pytest.raises(InputError, match=rf"gold.jsonl:2: .*{why}"):
        gold_files.read(str(path))


def test_a_set_is_called_as_its_first_file_and_never_as_a_file_of_the_evaluation() -> None:
    assert set_name(["s3://clinic/visits 2026.csv.gz", "b.csv"], None) == "visits-2026"
    assert set_name(["data/*.jsonl"], None) == "conversations"
    assert set_name(["visits"], "real-1") == "real-1"
    for name in ("scores.json", "../model", "a/b", ".."):
        with pytest.raises(UsageError, match="--set-name: got"):
            set_name(["visits.csv"], name)


@pytest.mark.parametrize(
    ("flags", "missing"), [(["--prefix", "p"], "--gold: missing"), (["--gold", "truth", "--model", "m"], "--prefix: missing")]
)
def test_what_a_set_needs_is_named(flags: list[str], missing: str) -> None:
    args = build_parser().parse_args(["evaluate", "--conversations", "visits.csv", *flags])
    with pytest.raises(UsageError, match=missing):
        args.verb(args, threading.Event())
