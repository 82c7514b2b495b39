"""The data set as others open it: pandas, DuckDB, Polars and Hugging Face's datasets read a run's files as they lie there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medkd.records import PATIENT_RECORD
from medkd.stages.prepare import build_data_set, read_splits
from medkd.store import layout, tables
from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator

SAMPLES = 42
TOOLS = "pandas", "duckdb", "polars"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """A data set's folder, and its rows by split as medkd reads them."""
    root = tmp_path_factory.mktemp("run")
    store = open_store(str(root))
    with start_simulator() as server:
        planned(store, simulated(server), samples=SAMPLES, held_out_topics=("gout",))
        Worker(store, simulated(server)).run(0)
    return root / layout.DATASET, read_splits(store, build_data_set(store))


def rows_of(tool: str, files: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The columns' types as the tool names them, and the rows."""
    if tool == "pandas":
        import pandas

        frame = pandas.concat([pandas.read_parquet(path) for path in sorted(Path(files).parent.glob(Path(files).name))])
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return {name: str(kind) for name, kind in frame.dtypes.items()}, rows
    if tool == "duckdb":
        import duckdb

        found = duckdb.connect().sql(f"from read_parquet('{files}')")
        return {
            name: str(kind) for name, kind in zip(found.columns, found.types, strict=True)
        }, found.to_arrow_table().to_pylist()
    import polars

    frame = polars.read_parquet(files)
    return {name: str(kind) for name, kind in frame.schema.items()}, frame.to_dicts()


# What a tool calls a text, a whole number, a flag and a fraction.
TYPES = {
    "pandas": {"str": "str", "int32": "int32", "int64": "int64", "bool": "bool", "float": "float64"},
    "duckdb": {"str": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN", "float": "DOUBLE"},
    "polars": {"str": "String", "int32": "Int32", "int64": "Int64", "bool": "Boolean", "float": "Float64"},
}
COLUMNS = {
    "input": "str",
    "output": "str",
    "variation": "int32",
    "prompt_tokens": "int64",
    "held_out_topic": "bool",
    "cost_usd": "float",
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_files_open_with_rows_and_types_as_written(tool: str, run: tuple[Path, dict[str, list[dict[str, Any]]]]) -> None:
    folder, splits = run
    for split, expected in splits.items():
        types, rows = rows_of(tool, str(folder / f"{split}-*.parquet"))
        assert list(types) == tables.DATASET_COLUMNS.names
        assert len(rows) == len(expected)
        for row, original in zip(rows, expected, strict=True):
            assert {name: row[name] for name in COLUMNS} == {name: original[name] for name in COLUMNS}
            assert PATIENT_RECORD.canonical(json.loads(row["output"])) == row["output"]
            pairs = {one["field"]: list(one["turns"]) for one in row["evidence"]}
            assert pairs == {one["field"]: one["turns"] for one in original["evidence"]}
    assert splits["train"] and splits["test"]
    types, _ = rows_of(tool, str(folder / "train-*.parquet"))
    assert {name: types[name] for name in COLUMNS} == {name: TYPES[tool][kind] for name, kind in COLUMNS.items()}


def test_hugging_face_finds_the_splits_by_the_card(run: tuple[Path, dict[str, list[dict[str, Any]]]], tmp_path: Path) -> None:
    import datasets

    folder, splits = run
    _, header, _ = (folder / "README.md").read_text().split("---\n", 2)
    assert [one["split"] for one in yaml.safe_load(header)["configs"][0]["data_files"]] == list(layout.SPLITS)
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {name: part["input"][:] for name, part in found.items()} == {
        name: [row["input"] for row in rows] for name, rows in splits.items()
    }
    features = found["train"].features
    assert [features[name].dtype for name in COLUMNS] == ["string", "string", "int32", "int64", "bool", "float64"]
    by_name = datasets.load_dataset(
        "parquet", data_files={"train": str(folder / "train-*.parquet")}, split="train", cache_dir=str(tmp_path)
    )
    assert by_name["output"][:] == [row["output"] for row in splits["train"]]
