"""From finished shards to the data set: equal for any cut and any store, verified, split without leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medkd.errors import ConfigError, InputError
from medkd.quality.splits import split_of
from medkd.records import PATIENT_RECORD
from medkd.simulator.server import Server
from medkd.stages import gaps, jsonl
from medkd.stages.prepare import build_data_set, read_splits, write_data_set
from medkd.store import layout, manifests, tables
from medkd.store.files import Store, open_store
from tests.generation import Worker, planned, simulated, start_simulator

SAMPLES = 42


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_simulator() as server:
        yield server


def generated(store: Store, server: Server, shards: int, **settings: object) -> Store:
    teacher = simulated(server)
    planned(store, teacher, samples=SAMPLES, shards=shards, **settings)  # type: ignore[arg-type]
    for shard in range(shards):
        Worker(store, teacher).run(shard)
    return store


@pytest.fixture(scope="module")
def one_shard_hash(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    store = generated(open_store(str(tmp_path_factory.mktemp("one"))), server, 1)
    return str(build_data_set(store).counts["data_set_hash"])


@pytest.mark.parametrize("shards", [4, 7])
def test_any_cut_on_any_store_gives_the_same_data_set(store: Store, server: Server, one_shard_hash: str, shards: int) -> None:
    manifest = build_data_set(generated(store, server, shards))
    assert manifest.counts["data_set_hash"] == one_shard_hash
    assert sum(manifest.counts[split] for split in layout.SPLITS) + manifest.counts["duplicates"] == SAMPLES


def test_every_row_lies_in_the_split_that_its_conversation_decides(server: Server) -> None:
    store = generated(open_store("memory://splits"), server, 2, held_out_topics=("gout",))
    splits = read_splits(store, build_data_set(store))
    assert all(splits.values())
    for split, rows in splits.items():
        for row in rows:
            assert split_of(row["conversation_sha256"], row["topic"], ("gout",)) == split
            assert (row["topic"] == "gout") == row["held_out_topic"]
            assert row["topic"] != "gout" or split == "test"


def test_a_shard_that_has_not_finished_is_named(server: Server) -> None:
    store, teacher = open_store("memory://unfinished"), simulated(server)
    planned(store, teacher, samples=8, shards=2)
    Worker(store, teacher).run(0)
    with pytest.raises(ConfigError, match="generate, shard 1, has not finished"):
        build_data_set(store)


def test_a_file_that_differs_from_its_manifest_is_named(server: Server) -> None:
    store = generated(open_store("memory://spoiled"), server, 2)
    path = layout.shard_file(1, "samples.parquet")
    store.replace(path, store.read(path)[:-1] + b"!")
    with pytest.raises(InputError, match=r"shard-00001/samples.parquet: differs from its manifest"):
        build_data_set(store)


def test_copies_of_a_conversation_are_left_out_and_the_lowest_id_kept(server: Server) -> None:
    store = generated(open_store("memory://copies"), server, 2)
    manifest = manifests.require(store, layout.shard_file(1, "manifest.json"), "generate")
    rows = tables.read(store, [manifest.files[0]])
    original = tables.read(store, [manifests.require(store, layout.shard_file(0, "manifest.json"), "generate").files[0]])[3]
    rows[5] |= {"input": original["input"].upper(), "output": original["output"]}
    entry = tables.write(store, manifest.files[0].path, rows, tables.SAMPLE_COLUMNS)
    changed = manifests.Manifest(**{**manifest.__dict__, "files": (entry, *manifest.files[1:])})
    manifests.write(store, layout.shard_file(1, "manifest.json"), changed)
    result = build_data_set(store)
    assert result.counts["duplicates"] == 1
    (left_out,) = tables.decode(store.read(f"{layout.DATASET}/rejected.parquet"))
    assert (left_out["sample_id"], left_out["kept_sample_id"], left_out["reason"]) == (
        rows[5]["sample_id"],
        original["sample_id"],
        "exact",
    )


def test_the_card_and_the_statistics_say_what_the_rows_say(server: Server) -> None:
    store = generated(open_store("memory://card"), server, 2)
    manifest = build_data_set(store)
    statistics = json.loads(store.read(f"{layout.DATASET}/statistics.json"))
    assert sum(statistics["by_topic"].values()) == SAMPLES - manifest.counts["duplicates"]
    assert 0 < statistics["share_stated"]["patient_details.name"] <= 1
    card = store.read(f"{layout.DATASET}/README.md").decode()
    assert manifest.counts["data_set_hash"] in card and "path: train-*.parquet" in card


def test_an_export_and_its_import_give_the_rows_back(server: Server, tmp_path: Path) -> None:
    store = generated(open_store("memory://export"), server, 2)
    target = tmp_path / "rows.jsonl"
    before = jsonl.write(jsonl.accepted_rows(store), target)
    build_data_set(store)
    assert jsonl.write(jsonl.accepted_rows(store), target) == before == SAMPLES
    rows, bad = jsonl.read(target, PATIENT_RECORD)
    assert not bad and [row["output"] for row in rows] == [row["output"] for row in jsonl.accepted_rows(store)]


def test_a_lost_shard_is_gone_on_without_only_where_that_is_recorded_and_is_counted_then(server: Server) -> None:
    store = open_store("memory://gaps")
    teacher = simulated(server)
    planned(store, teacher, samples=SAMPLES, shards=4)
    for shard in (0, 1, 3):
        Worker(store, teacher).run(shard)
    gaps.record(store, [1])
    with pytest.raises(ConfigError, match="generate, shard 2, has not finished"):
        build_data_set(store)
    gaps.record(store, [1, 2])
    build_data_set(store)
    statistics = json.loads(store.read(f"{layout.DATASET}/statistics.json"))
    # Shard 1 may be missing, yet is there.
    assert statistics["missing_shards"] == [2]
    assert statistics["missing_samples"] == 10
    assert "Missing: 1 shards with 10 planned samples" in store.read(f"{layout.DATASET}/README.md").decode()
    gaps.record(store, [])
    assert gaps.recorded(store) == frozenset()


def test_rows_of_a_foreign_file_become_a_data_set(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    jsonl.write(jsonl.accepted_rows(generated(open_store("memory://foreign-source"), server, 1)), target)
    target.write_text(target.read_text() + '{"input": 3}\n')
    rows, bad = jsonl.read(target, PATIENT_RECORD)
    assert [row.line for row in bad] == [SAMPLES + 1]
    manifest = write_data_set(open_store("memory://foreign"), "0" * 64, PATIENT_RECORD, rows, (), {}, {"rejected": len(bad)})
    assert sum(manifest.counts[split] for split in layout.SPLITS) + manifest.counts["duplicates"] == SAMPLES
