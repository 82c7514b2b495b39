"""The team's own conversations as an input: what spreadsheets and exports really look like."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkd.errors import ConfigError, InputError, MedkdError
from medkd.store.conversations import Columns, ImportedRow, SourceFile, read, survey

TALK = "Doctor: How are you?\nPatient: I've a cough."


def rows_of(path: Path | str, columns: Columns | None = None) -> list[ImportedRow]:
    columns = columns or Columns()
    files = survey([str(path)], columns)
    rows = list(read(files, columns, 0, sum(file.rows for file in files)))
    assert [number for number, _ in rows] == list(range(len(rows)))
    return [row for _, row in rows]


def write_csv(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_a_csv_keeps_newlines_quotes_and_commas_of_its_cells(tmp_path: Path) -> None:
    talks = [TALK, 'Doctor: "Stress," he said.\r\nPatient: 5\' 4", yes', "Doctor: a\n\n\nPatient: b,,c", 'Patient: """']
    path = write_csv(tmp_path / "a.csv", [{"id": str(number), "conversation": talk} for number, talk in enumerate(talks)])
    rows = rows_of(path, Columns(id="id"))
    assert [row.conversation for row in rows] == talks
    assert [row.source_id for row in rows] == ["0", "1", "2", "3"]
    assert all(row.problem is None for row in rows)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_csv_writer_quotes_is_read_back(tmp_path: Path, talks: list[str]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(["n", "conversation"])
    writer.writerows([(str(number), talk) for number, talk in enumerate(["sound", *talks])])
    (tmp_path / "a.csv").write_bytes(buffer.getvalue().encode())
    assert [row.conversation for row in rows_of(tmp_path / "a.csv")] == ["sound", *talks]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_a_csv_is_read_in_the_encodings_that_spreadsheets_write(tmp_path: Path, encoding: str) -> None:
    talk = "Doctor: It’s 38° – “fever”.\nPatient: Naïve question…"
    path = write_csv(tmp_path / "a.csv", [{"conversation": talk, "id": "ä"}], encoding)
    assert [(row.conversation, row.source_id) for row in rows_of(path, Columns(id="id"))] == [(talk, "ä")]


def test_broken_rows_of_a_csv_keep_their_number_and_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('conversation,id\n"Doctor: a\nPatient: b",1\n"c",2,surplus\n   ,3\nd\n', encoding="utf-8")
    rows = rows_of(path, Columns(id="id"))
    assert [row.problem for row in rows] == [
        None,
        f"{path}:4: more cells than the header has columns",
        f"{path}:5: no conversation text",
        None,
    ]
    assert rows[3].source_id == f"{path}:6", "a row without an id is named by its place"


def test_rows_of_a_csv_carry_record_and_topic_where_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [{"talk": TALK, "gold": '{"a": 1}', "section": "GENHX"}])
    row = rows_of(path, Columns(conversation="talk", record="gold", topic="section"))[0]
    assert (row.record, row.topic) == ('{"a": 1}', "GENHX")


# --- JSONL ------------------------------------------------------------------------------------------------------------


def test_broken_rows_of_jsonl_are_numbered_and_not_dropped(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"conversation": TALK, "id": 7},
            "{broken\n",
            "\n",
            "[1, 2]\n",
            {"conversation": ""},
            {"conversation": 5},
            "[" * 100_000 + "\n",
            {"other": TALK},
            {"conversation": TALK},
        ],
    )
    rows = rows_of(path, Columns(id="id"))
    assert [row.problem for row in rows] == [
        None,
        f"{path}:2: not a JSON object",
        f"{path}:4: not a JSON object",
        f"{path}:5: no conversation text",
        f"{path}:6: no conversation text",
        f"{path}:7: not a JSON object",
        f"{path}:8: no conversation text",
        None,
    ]
    assert [row.source_id for row in rows][:1] == ["7"]
    assert rows[-1].source_id == f"{path}:9"


def test_jsonl_breaks_lines_at_newlines_only(tmp_path: Path) -> None:
    talk = "Doctor: a\u2028b\x85c\x0bd\nPatient: e"
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"conversation": talk}, ensure_ascii=False).encode() + b"\r\n")
    assert [row.conversation for row in rows_of(path)] == [talk]


def test_a_record_given_as_an_object_becomes_json_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"conversation": TALK, "gold": {"age": "54", "name": "Zoë"}}])
    assert rows_of(path, Columns(record="gold"))[0].record == '{"age": "54", "name": "Zoë"}'


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_rows_are_read_with_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    gold = [{"age": "54", "seen": date(2024, 5, 1)}, None]
    pq.write_table(pa.table({"conversation": [TALK, None], "id": [1, 2], "gold": gold}), path)
    first, second = rows_of(path, Columns(id="id", record="gold"))
    assert (first.conversation, first.source_id, first.problem) == (TALK, "1", None)
    assert json.loads(str(first.record)) == {"age": "54", "seen": "2024-05-01"}
    assert second.problem == f"{path}:2: no conversation text"


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_spoiled_parquet_file_is_an_input_error_or_still_rows(tmp_path: Path, place: int, change: int) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"conversation": [TALK] * 3, "id": [1, 2, 3]}), sink)
    spoiled = bytearray(sink.getvalue())
    spoiled[place % len(spoiled)] ^= change
    (tmp_path / "a.parquet").write_bytes(spoiled)
    try:
        survey([str(tmp_path)], Columns())
    except MedkdError as error:
        assert "a.parquet" in str(error) or "rows in" in str(error)


# --- any file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@given(garbage=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_no_bytes_at_all_bring_anything_but_rows_or_an_error_of_ours(tmp_path: Path, suffix: str, garbage: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(garbage)
    try:
        rows_of(path)
    except MedkdError as error:
        assert str(tmp_path) in str(error)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("flag", "columns"),
    [
        ("conversation", Columns()),
        ("id", Columns(conversation="talk", id="nr")),
        ("record", Columns(conversation="talk", record="gold")),
        ("topic", Columns(conversation="talk", topic="section")),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, suffix: str, flag: str, columns: Columns) -> None:
    rows = [{"talk": TALK, "speaker": "both"}]
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        write_csv(path, rows)
    elif suffix == "jsonl":
        write_jsonl(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    wanted = getattr(columns, flag)
    with pytest.raises(ConfigError, match=f"--{flag}-column: got '{wanted}', columns of {path}: talk, speaker"):
        survey([str(path)], columns)


def test_a_csv_without_a_header_shows_little_of_what_was_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'"{TALK} My name is Adelheid Musterfrau."\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        survey([str(path)], Columns())
    assert "Adelheid" not in str(caught.value)


def some_files(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [
        write_csv(folder / "b.csv", [{"conversation": f"Doctor: b{number}"} for number in range(3)]),
        write_jsonl(folder / "a.jsonl", [{"conversation": f"Doctor: a{number}"} for number in range(2)]),
        write_jsonl(folder / "c.JSONL", [{"conversation": f"Doctor: c{number}"} for number in range(4)]),
    ]


def test_the_order_in_which_files_are_named_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = some_files(tmp_path)
    (tmp_path / "notes.txt").write_text("not read")
    expected = survey([str(path) for path in sorted(paths)], Columns())
    monkeypatch.chdir(tmp_path)
    shuffled = [str(path) for path in paths]
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert survey(shuffled, Columns()) == expected
    for patterns in ([str(tmp_path)], ["."], [f"{tmp_path}/*.csv", f"{tmp_path}/*L", "a.jsonl"], [f"file://{tmp_path}/"]):
        assert survey(patterns, Columns()) == expected
    assert [row.conversation for _, row in read(expected, Columns(), 0, 9)] == [
        f"Doctor: {name}" for name in ("a0", "a1", "b0", "b1", "b2", "c0", "c1", "c2", "c3")
    ]


@given(st.integers(0, 10), st.integers(0, 10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_range_of_rows_is_the_same_part_of_all_rows(tmp_path: Path, start: int, stop: int) -> None:
    files = survey([str(path) for path in some_files(tmp_path)], Columns())
    everything = list(read(files, Columns(), 0, 9))
    assert list(read(files, Columns(), start, stop)) == everything[start:stop]


def test_a_file_that_changed_since_the_plan_is_an_input_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"conversation": TALK}])
    files = survey([str(path)], Columns())
    write_jsonl(path, [{"conversation": TALK}, {"conversation": TALK}])
    with pytest.raises(InputError, match=r"a\.jsonl: changed since the run was planned; restore it or plan a new run"):
        list(read(files, Columns(), 0, 1))


def test_a_file_outside_the_asked_rows_is_not_even_opened(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"conversation": TALK}])
    gone = SourceFile(path=str(tmp_path / "gone.jsonl"), rows=5, sha256="")
    files = [*survey([str(path)], Columns()), gone]
    assert len(list(read(files, Columns(), 0, 1))) == 1
    with pytest.raises(InputError, match=r"gone\.jsonl: cannot be read \(No such file or directory\)"):
        list(read(files, Columns(), 0, 2))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("absent.csv", r"absent\.csv: cannot be read \(No such file or directory\)"),
        ("*.csv", r"--conversations .*\*\.csv: no such file"),
        ("notes.txt", "expected files ending in .csv, .jsonl or .parquet"),
        ("empty", "no such file"),
        ("nonsense://a.csv", "nonsense"),
    ],
)
def test_a_pattern_that_finds_nothing_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        survey([pattern], Columns())


def test_files_without_one_usable_row_are_an_input_error_with_the_first_reason(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"conversation": " "}, "broken\n"])
    with pytest.raises(InputError, match=rf"none of 2 rows in 1 files can be used; {path}:1: no conversation text"):
        survey([str(path)], Columns())
    path.write_text("")
    with pytest.raises(InputError, match="none of 0 rows in 1 files can be used"):
        survey([str(path)], Columns())


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "export [1].jsonl", [{"conversation": TALK}])
    assert len(rows_of(path)) == 1


@pytest.mark.skipif("MEDKD_MTS_DIALOG" not in os.environ, reason="MEDKD_MTS_DIALOG names the folder of the MTS-Dialog data set")
def test_mts_dialog_is_read_whole() -> None:
    folder = Path(os.environ["MEDKD_MTS_DIALOG"])
    columns = Columns(conversation="dialogue", id="ID", topic="section_header")
    files = survey([str(folder)], columns)
    assert {Path(file.path).name: file.rows for file in files} == {
        "MTS-Dialog-TrainingSet.csv": 1201,
        "MTS-Dialog-ValidationSet.csv": 100,
    }
    rows = [row for _, row in read(files, columns, 0, 1301)]
    assert len(rows) == 1301
    assert [row.source_id for row in rows[:1201]] == [str(number) for number in range(1201)]
    assert sum(1 for row in rows if row.problem) == 0
    assert all("\n" in row.conversation or ":" in row.conversation for row in rows)
    assert {"GENHX", "MEDICATIONS", "ALLERGY"} <= {row.topic for row in rows}
