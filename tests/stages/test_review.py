"""Rows out to people and what they say back in: the sample, the figures, the gold and the data set that follow from it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medkd.store import layout, tables
from medkd.store.files import Store, open_store
from tests.generation import Worker, planned, simulated, start_simulator
from tests.test_commands import medkd, refused

SAMPLES = 60


def all_rows(store: Store, name: str) -> list[dict[str, Any]]:
    paths = [file.path for file in store.list_files(layout.GENERATE) if file.path.endswith(f"/{name}.parquet")]
    return [row for path in paths for row in tables.decode(store.read(path))]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A run whose teacher invents medicines and sometimes writes no JSON, and the true records by conversation."""
    folder = tmp_path_factory.mktemp("generated")
    with start_simulator(faults="hallucinate:0.6,not_json:0.2", write_gold=folder / "gold.jsonl") as server:
        store, teacher = open_store(str(folder / "run")), simulated(server)
        planned(store, teacher, samples=SAMPLES, shards=2)
        for shard in range(2):
            Worker(store, teacher).run(shard)
    gold = [json.loads(line) for line in (folder / "gold.jsonl").read_text().splitlines()]
    yield folder / "run", {one["conversation_sha256"]: one["record"] for one in gold}


@pytest.fixture
def run(generated: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it, for a test to write into."""
    target = tmp_path / "run"
    open_store(str(generated[0])).download("", target)
    return target


def exported(run: Path, *more: str, rows: int = 40) -> Path:
    """The JSON lines that `medkd review export` wrote."""
    target = run.parent / "rows.jsonl"
    finished = medkd("review", "export", "--prefix", str(run), "--output", str(target), "--rows", str(rows), *more)
    assert finished.returncode == 0, finished.stderr
    return target


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_format_holds_the_same_rows_and_none_tells_what_became_of_them(run: Path, tmp_path: Path) -> None:
    names = [str(tmp_path / f"out/rows.{kind}") for kind in ("csv", "jsonl", "html")]
    outputs = [word for name in names for word in ("--output", name)]
    finished = medkd("review", "export", "--prefix", str(run), "--rows", "40", *outputs)
    assert finished.returncode == 0, finished.stderr
    rows = lines_of(tmp_path / "out/rows.jsonl")
    with (tmp_path / "out/rows.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert [row["sample_id"] for row in cells] == [row["sample_id"] for row in rows]
    page = (tmp_path / "out/rows.html").read_text()
    store = open_store(str(run))
    accepted = {f"{row['sample_id']}v{row['variation']}": row for row in all_rows(store, "samples")}
    rejected = {f"{row['sample_id']}v{row['variation']}": row for row in all_rows(store, "rejected")}
    assert len(rows) == len({row["sample_id"] for row in rows}) == 40
    for row, cell in zip(rows, cells, strict=True):
        origin = accepted.get(row["sample_id"])
        if origin:
            assert (row["conversation"], row["record"]) == (origin["input"], json.loads(origin["output"]))
        else:
            origin = rejected[row["sample_id"]]
            assert row["conversation"] == origin["conversation"]
            assert row["record"] == json.loads(origin["raw_text"]) if row["record"] else row["raw_text"] == origin["raw_text"]
        assert f'"{row["sample_id"]}"' in page
        assert cell["conversation"].startswith("1. Doctor: ")
        # What a cell's end looks like is the record's; a row without one says so.
        assert json.loads(cell["record"]) == row["record"] if row["record"] else cell["record"].startswith("NO RECORD")
    for text in (page, (tmp_path / "out/rows.csv").read_text(), (tmp_path / "out/rows.jsonl").read_text()):
        assert not any(word in text for word in ("ungrounded", "not_json", "accepted", "rejected"))
    assert {row["sample_id"] in rejected for row in rows} == {True, False}


def test_weights_say_for_how_many_rows_each_stands(run: Path) -> None:
    shown = lines_of(exported(run, "--show-outcome"))
    kept = lines_of(run / layout.review_sample("first"))
    assert [one["weight"] for one in shown] == [one["weight"] for one in kept]
    store = open_store(str(run))
    sizes = Counter(("accepted", row["topic"]) for row in all_rows(store, "samples"))
    sizes += Counter(("rejected", row["topic"]) for row in all_rows(store, "rejected") if row["conversation"])
    weights: Counter[tuple[str, str]] = Counter()
    for one in kept:
        weights[one["status"], one["about"]["topic"]] += one["weight"]
    assert {stratum: round(total) for stratum, total in weights.items()} == sizes
    assert {one["outcome"] for one in shown} <= {"accepted", "rejected: ungrounded", "rejected: not_json", "rejected: empty"}
    assert any(one["outcome"] == "rejected: ungrounded" and one["record"] for one in shown)


def test_the_same_flags_draw_the_same_rows_and_others_need_another_name(run: Path) -> None:
    first = exported(run).read_bytes()
    assert exported(run).read_bytes() == first
    line = ["review", "export", "--prefix", str(run), "--output", str(run.parent / "x.csv")]
    refused(medkd(*line, "--rows", "41"), 78, "--name: got 'first'", "num_rows 40", "new name")
    other = lines_of(exported(run, "--seed", "2", "--name", "second"))
    assert {row["sample_id"] for row in other} != {json.loads(line)["sample_id"] for line in first.decode().splitlines()}


def test_only_rows_of_a_split_where_that_is_asked(run: Path) -> None:
    exported(run, "--split", "test", "--name", "test", rows=20)
    assert {one["split"] for one in lines_of(run / layout.review_sample("test"))} == {"test"}


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--output", "rows.xlsx"], 64, ["--output: got 'rows.xlsx'", ".csv, .jsonl or .html"]),
        (["--output", "rows.csv", "--rows", "2"], 64, ["--rows: got 2, expected at least"]),
        (["--output", "rows.csv", "--share-rejected", "3"], 64, ["--share-rejected", "from 0 to 1"]),
        (["--output", "rows.csv", "--name", "../x"], 64, ["--name: got '../x'"]),
    ],
)
def test_a_wrong_flag_is_one_line_that_says_what_is_allowed(
    generated: tuple[Path, Any], flags: list[str], code: int, words: list[str]
) -> None:
    refused(medkd("review", "export", "--prefix", str(generated[0]), *flags), code, *words)


def test_a_run_that_has_generated_nothing_is_refused(tmp_path: Path) -> None:
    refused(medkd("review", "export", "--prefix", str(tmp_path), "--output", "rows.csv"), 78, "stage plan has not finished")
