"""Files that people fill in: they survive spreadsheets, and come back as they went out."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.errors import InputError
from medkd.store import review_files

COLUMNS = ["sample_id", "record", "comment"]


def back(path: Path, data: bytes) -> list[dict[str, str]]:
    path.write_bytes(data)
    return [dict(row.values) for row in review_files.read(str(path))]


@given(st.lists(st.tuples(st.text("'=+-@\t\ra,\"\n;é", min_size=1), st.text())))
def test_what_goes_out_as_csv_comes_back(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]) -> None:
    rows = [{"sample_id": "000000001v0", "record": one, "comment": other} for one, other in cells]
    data = review_files.as_csv(rows, COLUMNS)
    assert back(tmp_path_factory.mktemp("csv") / "filled.csv", data) == rows


def test_no_cell_is_a_formula_in_a_spreadsheet() -> None:
    dangerous = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1"]
    data = review_files.as_csv([{"sample_id": "a", "record": cell, "comment": "fine"} for cell in dangerous], COLUMNS)
    assert data.startswith(b"\xef\xbb\xbf")
    _, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert [row[1] for row in rows] == [f"'{cell}" for cell in dangerous]
    assert [row[2] for row in rows] == ["fine"] * len(rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_what_spreadsheets_of_any_language_save_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(
        [COLUMNS, ["000000001v0", '{"a": 1,\n"b;": 2}', "Müller; said, so"], ["", "", ""]]
    )
    assert back(tmp_path / "filled.csv", text.getvalue().encode(encoding)) == [
        {"sample_id": "000000001v0", "record": '{"a": 1,\n"b;": 2}', "comment": "Müller; said, so"}
    ]


def test_json_lines_are_exact(tmp_path: Path) -> None:
    rows = [{"conversation": "Doctor: =1\r\n\ud83d lone é \u2028", "record": None}]
    assert back(tmp_path / "filled.jsonl", review_files.as_jsonl(rows)) == rows


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b'sample_id,comment\nx,"open', "a.csv:2: not CSV"),
        ("a.csv", b"sample_id,comment\nx,y,z\n", "a.csv:2: got 3 cells, the header has 2 columns"),
        ("a.jsonl", b'{"a": 1}\n[]\n', "a.jsonl:2: got no JSON object"),
        ("a.jsonl", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        back(tmp_path / name, data)
