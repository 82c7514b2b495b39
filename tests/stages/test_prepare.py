"""From finished shards to the data set: equal for any cut and any store, verified, split without leaks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from medkd import config
from medkd.config import Bars, DataSetBars
from medkd.errors import BelowBarError, ConfigError, InputError
from medkd.quality.splits import split_of
from medkd.records import PATIENT_RECORD
from medkd.samples import INSTRUCTION, DataSetHasher, conversation_sha256, data_set_hash, sample_id
from medkd.simulator.server import Server
from medkd.stages import gaps, jsonl, standing
from medkd.stages.lent import all_rows, find_lent
from medkd.stages.prepare import build_data_set, prepare, read_splits, write_data_set
from medkd.stages.sources import RowsInMemory
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
    ((teacher, found),) = statistics["acceptance"]["teacher"].items()
    assert f"| {teacher} | {found['tries']:,} | {found['accepted']:,} | {100 * found['acceptance']:.1f}% | $" in card
    assert all(f"| {topic} | " in card for topic in statistics["acceptance"]["topic"])


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


def test_the_hash_of_rows_that_stream_is_the_hash_of_all_rows(server: Server) -> None:
    store = generated(open_store("memory://hashes"), server, 3)
    manifest = build_data_set(store)
    rows = [row for split in read_splits(store, manifest).values() for row in split]
    assert data_set_hash(rows) == manifest.counts["data_set_hash"]
    hasher = DataSetHasher()
    hasher.add(rows[1])
    with pytest.raises(ValueError, match="does not come after"):
        hasher.add(rows[0])


def test_the_balance_of_cells_is_counted(server: Server) -> None:
    store = generated(open_store("memory://balance"), server, 1)
    manifest = build_data_set(store)
    statistics = json.loads(store.read(f"{layout.DATASET}/statistics.json"))
    cells = {(cell["topic"], cell["mood"]): cell for cell in statistics["by_cell"]}
    assert len(cells) == statistics["balance"]["cells"] == 6
    rows = read_splits(store, manifest)
    for split in layout.SPLITS:
        for topic, mood in cells:
            found = sum((row["topic"], row["mood"]) == (topic, mood) for row in rows[split])
            assert cells[topic, mood][split] == found
    assert statistics["balance"]["smallest"] == min(sum(cell[split] for split in layout.SPLITS) for cell in cells.values())


def test_the_data_sets_of_several_runs_unite_without_leaks_in_any_order(server: Server, tmp_path: Path) -> None:
    runs = [open_store(str(tmp_path / name)) for name in ("one", "two", "three")]
    for seed, run in enumerate(runs):
        build_data_set(generated(run, server, 2, seed=seed))
    orders = {"memory://union": runs, "memory://union-turned": runs[::-1]}
    parts = [
        write_data_set(open_store(url), "0" * 64, PATIENT_RECORD, all_rows(None, find_lent(chosen)), (), {}, {})
        for url, chosen in orders.items()
    ]
    assert parts[0].counts == parts[1].counts
    union = open_store("memory://union")
    splits = read_splits(union, parts[0])
    rows = [row for split in splits.values() for row in split]
    assert len({row["sample_id"] for row in rows}) == len(rows) == 3 * SAMPLES - parts[0].counts["duplicates"]
    hashes = [manifests.require(run, layout.DATASET_MANIFEST, "prepare").counts["data_set_hash"] for run in runs]
    assert {row["sample_id"][:9] for row in rows} == {f"{found[:8]}-" for found in hashes}
    before = {row["conversation_sha256"]: split for run in runs for split, rows in all_splits(run) for row in rows}
    assert all(before[row["conversation_sha256"]] == split for split, rows in splits.items() for row in rows)


def all_splits(run: Store) -> Iterable[tuple[str, list[dict[str, object]]]]:
    return read_splits(run, manifests.require(run, layout.DATASET_MANIFEST, "prepare")).items()


def test_a_training_row_that_says_what_a_test_row_says_is_left_out() -> None:
    rows = [sample(index, " ".join(f"word{index}x{place}" for place in range(90))) for index in range(60)]
    split = {row["sample_id"]: split_of(conversation_sha256(row["input"]), "gout", ()) for row in rows}
    tested = next(row for row in rows if split[row["sample_id"]] == "test")
    leak = next(
        row
        for tail in range(100)
        if split_of(conversation_sha256((row := sample(99, f"{tested['input']} tail{tail}"))["input"]), "gout", ()) == "train"
    )
    store = open_store("memory://leak")
    manifest = write_data_set(store, "0" * 64, PATIENT_RECORD, RowsInMemory([*rows, leak]), (), {}, {})
    (left_out,) = tables.decode(store.read(f"{layout.DATASET}/rejected.parquet"))
    assert (left_out["sample_id"], left_out["kept_sample_id"], left_out["reason"]) == (
        leak["sample_id"],
        tested["sample_id"],
        "leak",
    )
    assert manifest.counts["duplicates"] == 1
    assert "and 1 rows that say what a row of a later split says" in store.read(f"{layout.DATASET}/README.md").decode()


def test_flagged_values_are_counted_and_stay_with_their_rows() -> None:
    plain = sample(0, "Patient: Good day.")
    flagged = sample(1, "Patient: Hello there, doctor.") | {"unsupported": [{"field": "patient_details.age", "value": "7"}]}
    store = open_store("memory://flagged")
    manifest = write_data_set(store, "0" * 64, PATIENT_RECORD, RowsInMemory([plain, flagged]), (), {}, {})
    rows = [row for split in read_splits(store, manifest).values() for row in split]
    assert [row["unsupported"] for row in sorted(rows, key=lambda row: str(row["sample_id"]))] == [None, flagged["unsupported"]]
    assert json.loads(store.read(f"{layout.DATASET}/statistics.json"))["flagged"] == {"patient_details.age": 1}
    assert "patient_details.age in 1" in store.read(f"{layout.DATASET}/README.md").decode()


def test_a_data_set_below_a_bar_says_which_and_writes_no_tokens(server: Server) -> None:
    store = generated(open_store("memory://bars"), server, 1)
    student = config.load(None).student("tiny-t5")
    bars = DataSetBars(train_rows=20, rows_per_topic=50, share_stated={"patient_details.age": 0.1}, reject_rate=0.5)
    with pytest.raises(BelowBarError, match=r"rows of a topic \(\w+ has the fewest\): got \d+, the bar is 50$"):
        prepare(store, "tiny-t5", student, bars=bars)
    verdict = json.loads(store.read(layout.DATASET_BARS))
    assert [check["passed"] for check in verdict["checks"]] == [True, False, True, True]
    assert manifests.read(store, layout.DATASET_MANIFEST) and not store.list_files("students")
    with pytest.raises(ConfigError, match="share_stated: got 'nothing', known: "):
        prepare(store, "tiny-t5", student, bars=DataSetBars(share_stated={"nothing": 0.5}))


def test_other_bars_alone_are_judged_on_the_data_set_that_stands_and_its_card_says_so(server: Server) -> None:
    store = generated(open_store("memory://other-bars"), server, 1)
    student = config.load(None).student("tiny-t5")
    card = f"{layout.DATASET}/README.md"

    def prepared(bars: DataSetBars) -> dict[str, bytes]:
        manifest = prepare(store, "tiny-t5", student, bars=bars)
        wanted = standing.Wanted(student="tiny-t5", bars=Bars(prepare=bars))
        assert not standing.shortfall(store, "prepare", wanted)
        assert "judged by other bars" in standing.shortfall(
            store, "prepare", standing.Wanted(student="tiny-t5", bars=Bars(prepare=DataSetBars(train_rows=7)))
        )
        assert not manifests.missing_files(store, manifest, layout.DATASET)
        return {file.path: store.read(file.path) for file in manifest.files}

    plain, judged = prepared(DataSetBars()), prepared(DataSetBars(train_rows=20))
    assert "Bars:" not in plain[card].decode() and "- Bars: passed (rows to train on: got" in judged[card].decode()
    assert {path for path in plain if plain[path] != judged[path]} == {card}
    with pytest.raises(BelowBarError):
        prepare(store, "tiny-t5", student, bars=DataSetBars(train_rows=10_000))
    assert "- Bars: below its bar" in store.read(card).decode()
    assert prepared(DataSetBars()) == plain and not store.exists(layout.DATASET_BARS)


def sample(index: int, conversation: str) -> dict[str, object]:
    return {
        "sample_id": sample_id(index),
        "topic": "gout",
        "mood": "calm",
        "instruction": INSTRUCTION,
        "input": conversation,
        "output": PATIENT_RECORD.canonical(PATIENT_RECORD.empty()),
        "reference": "teacher",
        "teacher": "nobody",
    }


def test_rows_of_a_foreign_file_become_a_data_set(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    jsonl.write(jsonl.accepted_rows(generated(open_store("memory://foreign-source"), server, 1)), target)
    target.write_text(target.read_text() + '{"input": 3}\n')
    rows, bad = jsonl.read(target, PATIENT_RECORD)
    assert [row.line for row in bad] == [SAMPLES + 1]
    manifest = write_data_set(
        open_store("memory://foreign"), "0" * 64, PATIENT_RECORD, RowsInMemory(rows), (), {}, {"rejected": len(bad)}
    )
    assert sum(manifest.counts[split] for split in layout.SPLITS) + manifest.counts["duplicates"] == SAMPLES


def test_a_second_run_takes_the_data_set_of_the_first_as_it_is(server: Server) -> None:
    first = generated(open_store("memory://lender"), server, 2, held_out_topics=("gout",))
    with pytest.raises(ConfigError, match="memory://lender has no data set"):
        find_lent([first])
    lent_manifest = build_data_set(first)
    second = open_store("memory://borrower-of-two")
    planned(second, simulated(server), samples=0, shards=0)
    student = config.load(None).student("tiny-t5")
    manifest = prepare(second, "tiny-t5", student, find_lent([first]))
    assert manifest.counts == lent_manifest.counts, "the same rows in the same splits, and so the same hash"
    assert manifest.inputs == {f"memory://lender/{layout.DATASET_MANIFEST}": lent_manifest.counts["data_set_hash"]}
    assert {row["topic"] for row in read_splits(second, manifest)["test"] if row["held_out_topic"]} == {"gout"}
    # Again, and by hand without naming the lender: it stands.
    assert prepare(second, "tiny-t5", student, find_lent([first])) == prepare(second, "tiny-t5", student) == manifest


def test_a_data_set_grows_by_those_of_other_runs_and_nothing_tested_on_turns_into_training(server: Server) -> None:
    first = generated(open_store("memory://grows-1"), server, 2, held_out_topics=("gout",))
    build_data_set(first)
    second = generated(open_store("memory://grows-2"), server, 1, seed=2)
    with pytest.raises(ConfigError, match="holds the same data set"):
        find_lent([first, first])
    manifest = build_data_set(second, find_lent([first]))
    assert sum(manifest.counts[split] for split in layout.SPLITS) + manifest.counts["duplicates"] == 2 * SAMPLES
    splits = read_splits(second, manifest)
    tested = {row["conversation_sha256"] for row in read_splits(first, find_lent([first])[0].manifest)["test"]}
    assert tested and not tested & {row["conversation_sha256"] for row in splits["train"] + splits["validation"]}
    assert not [row for row in splits["train"] if row["topic"] == "gout"]
    ids = [row["sample_id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == len(ids)
    third = generated(open_store("memory://grows-3"), server, 1, seed=3)
    build_data_set(third)
    with pytest.raises(ConfigError, match="made from other data sets"):
        prepare(second, "tiny-t5", config.load(None).student("tiny-t5"), find_lent([third]))
