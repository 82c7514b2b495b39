"""The team's own conversations as an input: what spreadsheets and exports really look like."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkd.errors import ConfigError, InputError, MedkdError
from medkd.store.conversations import Block, Columns, ImportedRow, SourceFile, read, stream, survey
from medkd.store.files import open_store
from medkd.store.row_formats import MAX_ROW_BYTES

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
    gone = SourceFile(path=str(tmp_path / "gone.jsonl"), rows=5, sha256="", blocks=(Block(rows=5, line=1, offset=0, sha256=""),))
    files = [*survey([str(path)], Columns()), gone]
    assert len(list(read(files, Columns(), 0, 1))) == 1
    with pytest.raises(InputError, match=r"gone\.jsonl: cannot be read \(No such file or directory\)"):
        list(read(files, Columns(), 0, 2))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("absent.csv", r"absent\.csv: cannot be read \(No such file or directory\)"),
        ("*.csv", r"--conversations .*\*\.csv: no such file"),
        ("notes.txt", "expected files ending in .csv, .jsonl or .parquet, all but Parquet also with .gz"),
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


def test_a_stream_reads_all_kinds_in_the_order_of_paths_and_takes_a_text_file_for_one_conversation(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n7,"Doctor: Hi.\nPatient: Hello."\n8,\n')
    write_jsonl(tmp_path / "b.jsonl", [{"text": TALK, "id": "x"}, "broken\n"])
    pq.write_table(pa.table({"text": [TALK], "id": [3]}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text(f"\ufeff{TALK}", encoding="utf-8")
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"\xff\xfe"))
    rows = list(stream([str(tmp_path)], Columns(conversation="text", id="id"), flag="--input"))
    assert [row.source_id for row in rows] == [
        *("7", "8", "x", f"{tmp_path}/b.jsonl:2", "3"),
        *(f"{tmp_path}/d.txt", f"{tmp_path}/e.txt.gz"),
    ]
    assert [row.conversation for row in rows if row.problem is None] == ["Doctor: Hi.\nPatient: Hello.", TALK, TALK, TALK]
    assert [row.problem for row in rows if row.problem] == [
        f"{tmp_path}/a.csv:4: no conversation text",
        f"{tmp_path}/b.jsonl:2: not a JSON object",
        f"{tmp_path}/e.txt.gz:1: not UTF-8 text",
    ]
    with pytest.raises(ConfigError, match="--conversation-column: got 'talk', columns of"):
        list(stream([str(tmp_path / "b.jsonl")], Columns(conversation="talk")))
    with pytest.raises(InputError, match=r"^--input .*none: no such file"):
        stream([f"{tmp_path}/*.none"], Columns(), flag="--input")


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


# --- what large or torn files do --------------------------------------------------------------------------------------


def compress(path: Path, suffix: str) -> Path:
    """The file compressed, beside itself, which is removed."""
    data, target = path.read_bytes(), path.with_name(f"{path.name}.{suffix}")
    if suffix == "zst":
        with pa.CompressedOutputStream(str(target), "zstd") as file:
            file.write(data)
    else:
        target.write_bytes({"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[suffix](data))
    path.unlink()
    return target


def many(folder: Path, kind: str, count: int = 3500) -> Path:
    """A file of several blocks, with lines of every kind of end in its cells."""
    rows = [
        {"id": f"v{number}", "conversation": f"Doctor: {number}\r\nPatient: \u00e9\n{'x' * (number % 50)}"}
        for number in range(count)
    ]
    path = folder / f"many.{kind}"
    if kind == "csv":
        return write_csv(path, rows)
    if kind == "jsonl":
        return write_jsonl(path, rows)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=600)
    return path


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_compressed_file_holds_the_same_rows(tmp_path: Path, kind: str, suffix: str) -> None:
    plain = rows_of(many(tmp_path, kind), Columns(id="id"))
    packed = compress(tmp_path / f"many.{kind}", suffix)
    files = survey([str(packed)], Columns(id="id"))
    assert [row.conversation for _, row in read(files, Columns(id="id"), 0, 3500)] == [row.conversation for row in plain]
    assert [(number, row.source_id) for number, row in read(files, Columns(id="id"), 2100, 2103)] == [
        (2100, "v2100"),
        (2101, "v2101"),
        (2102, "v2102"),
    ]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_a_torn_compressed_file_is_an_input_error(tmp_path: Path, suffix: str) -> None:
    path = compress(many(tmp_path, "jsonl"), suffix)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"many\.jsonl\.{suffix}: cannot be"):
        survey([str(path)], Columns())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_ranges_over_blocks_are_parts_of_all_rows_with_the_same_lines(tmp_path: Path, kind: str) -> None:
    files = survey([str(many(tmp_path, kind))], Columns())
    everything = list(read(files, Columns(), 0, 3500))
    assert len(files[0].blocks) == 4 and len({row.source_id for _, row in everything}) == 3500
    for start, stop in ((0, 1), (999, 1001), (1000, 2000), (3499, 3500), (1234, 3456), (3500, 4000)):
        assert list(read(files, Columns(), start, stop)) == everything[start:stop]


class _Counting(LocalFileSystem):
    """Local files as `counted://`, which says how many bytes were read."""

    protocol = "counted"
    bytes_read = 0

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        kwargs = {name: value for name, value in kwargs.items() if name in ("mode", "block_size")}
        return _CountedFile(super()._open(path, *args, **kwargs))

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(str(path).removeprefix("counted://")))

    def unstrip_protocol(self, name: str) -> str:
        return f"counted://{name}"


class _CountedFile(io.RawIOBase):
    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(size)
        _Counting.bytes_read += len(data)
        return data

    def close(self) -> None:
        self.file.close()
        super().close()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_shard_reads_its_part_of_a_file_and_little_more(tmp_path: Path, kind: str) -> None:
    fsspec.register_implementation("counted", _Counting, clobber=True)
    noise = random.Random(7)
    rows = [
        {"conversation": f"Doctor: {noise.randbytes(1200).hex()}\nPatient: {number}", "unused": noise.randbytes(1200).hex()}
        for number in range(6000)
    ]
    path = tmp_path / f"large.{kind}"
    if kind == "csv":
        write_csv(path, rows)
    elif kind == "jsonl":
        write_jsonl(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500)
    _Counting.bytes_read = 0
    files = survey([f"counted://{path}"], Columns())
    if kind == "parquet":
        assert _Counting.bytes_read < 0.6 * path.stat().st_size, "the unused column is not read"
    for start in (0, 2500, 5990):
        _Counting.bytes_read = 0
        found = list(read(files, Columns(), start, start + 10))
        assert [row.conversation for _, row in found] == [row["conversation"] for row in rows[start : start + 10]]
        assert _Counting.bytes_read < path.stat().st_size / 3


def test_a_file_that_ends_within_a_quote_loses_only_that_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('conversation,id\n"Doctor: a\nPatient: b",1\n"Doctor: oh no,2\nDoctor: c,3\nDoctor: d,4\n', encoding="utf-8")
    rows = rows_of(path, Columns(id="id"))
    assert [(row.conversation, row.problem) for row in rows] == [
        ("Doctor: a\nPatient: b", None),
        ("", f"{path}:4: a quote is never closed"),
        ("Doctor: c", None),
        ("Doctor: d", None),
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_row_without_end_is_broken_and_the_rows_behind_it_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    endless = "x" * (MAX_ROW_BYTES + 300_000)
    before, after = json.dumps({"conversation": "Doctor: a"}), json.dumps({"conversation": "Doctor: b"})
    if suffix == "csv":
        path.write_text(f"conversation,id\nDoctor: a,1\n{endless}\nDoctor: b,3\n", encoding="utf-8")
    else:
        path.write_text(f"{before}\n{endless}\n{after}\n", encoding="utf-8")
    rows = rows_of(path)
    line = 3 if suffix == "csv" else 2
    assert [(row.conversation, row.problem) for row in rows] == [
        ("Doctor: a", None),
        ("", f"{path}:{line}: longer than 4 MiB"),
        ("Doctor: b", None),
    ]
    assert rows[2].place == f"{path}:{line + 1}"


def test_jsonl_that_is_not_utf8_loses_the_line_and_csv_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"conversation": "Doctor: a"}\n{"conversation": "Doctor: \xe9"}\n')
    assert [row.problem for row in rows_of(tmp_path / "a.jsonl")] == [None, f"{tmp_path}/a.jsonl:2: not UTF-8 text"]
    (tmp_path / "a.csv").write_bytes("conversation\nDoctor: é\n".encode() + b"Doctor: \xe9\n")
    assert [row.conversation for row in rows_of(tmp_path / "a.csv")] == ["Doctor: é", "Doctor: é"]


def test_a_cell_of_parquet_that_is_no_text_costs_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"Doctor: a", b"Doctor: \xff", b"Doctor: c"], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"conversation": text}), tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet")
    assert [row.conversation for row in rows] == ["Doctor: a", "", "Doctor: c"]
    assert rows[1].problem == f"{tmp_path}/a.parquet:2: a cell cannot be decoded (UnicodeDecodeError)"


def test_a_changed_block_is_noticed_by_the_shard_that_reads_it_and_by_no_other(tmp_path: Path) -> None:
    path = many(tmp_path, "jsonl")
    files = survey([str(path)], Columns())
    path.write_text(path.read_text(encoding="utf-8").replace('"Doctor: 1500', '"Doctor: 9500'), encoding="utf-8")
    assert len(list(read(files, Columns(), 2000, 3500))) == 1500
    with pytest.raises(InputError, match=r"many\.jsonl: changed since the run was planned"):
        list(read(files, Columns(), 1400, 1401))


def test_gold_and_id_come_along_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [
            {"conversation": TALK, "key": "a", "gold": {"name": "Zoë"}},
            {"conversation": TALK, "key": "", "gold": " "},
            {"conversation": TALK},
        ],
    )
    rows = rows_of(path, Columns(id="key", gold="gold"))
    assert [(row.source_id, row.gold, row.record) for row in rows] == [
        ("a", '{"name": "Zoë"}', None),
        (f"{path}:2", None, None),
        (f"{path}:3", None, None),
    ]


def test_a_row_that_lacks_its_record_is_broken_and_not_asked_for(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"conversation": TALK, "label": {"a": "1"}}, {"conversation": TALK}])
    assert [row.problem for row in rows_of(path, Columns(record="label"))] == [None, f"{path}:2: no record"]


def test_files_in_memory_in_an_archive_and_on_s3_are_read_alike(tmp_path: Path) -> None:
    path = many(tmp_path, "csv", 5)
    expected = [row.conversation for row in rows_of(path)]
    fsspec.filesystem("memory").pipe_file("/visits/many.csv", path.read_bytes())
    with zipfile.ZipFile(tmp_path / "visits.zip", "w") as archive:
        archive.write(path, "deep/many.csv")
    for pattern in ("memory://visits/*.csv", f"zip://deep/*.csv::file://{tmp_path}/visits.zip"):
        assert [row.conversation for row in rows_of(pattern)] == expected


@pytest.mark.s3
def test_conversations_in_s3_are_opened_as_the_runs_own_store_is(s3_server: Any) -> None:
    store = open_store("s3://runs/visits", s3_server.options())
    for name in ("b", "a"):
        text = "".join(json.dumps({"conversation": f"Doctor: {name}{number}"}) + "\n" for number in range(1500))
        store.replace(f"{name}.jsonl", text.encode())
    files = survey(["s3://runs/visits/*.jsonl"], Columns(), store.options)
    assert [file.path for file in files] == ["s3://runs/visits/a.jsonl", "s3://runs/visits/b.jsonl"]
    found = [row.conversation for _, row in read(files, Columns(), 1499, 1501, store.options)]
    assert found == ["Doctor: a1499", "Doctor: b0"]
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read"):
        survey(["s3://runs/visits/absent.jsonl"], Columns(), store.options)


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
