"""Looking into a run: an open shard shows what its tables will, and nothing is shown that the files do not hold."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

from medkd.config import Judges, Prices
from medkd.errors import ConfigError, StoppedError, UsageError
from medkd.quality.sample_sheet import sample_sheet
from medkd.quality.score_sets import Prediction, Reference
from medkd.records import PATIENT_RECORD
from medkd.samples import sample_id
from medkd.stages.answers import prediction_rows
from medkd.stages.inspection import accepted_rows, find, overview, rejected_tries, sample
from medkd.stages.opened_run import Run, open_run
from medkd.stages.plan import ConversationSource
from medkd.stages.prepare import build_data_set
from medkd.store import layout, manifests, tables
from medkd.store.conversations import Columns, survey
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from tests.command_line import medkd, refused
from tests.generation import Worker, planned, simulated, start_simulator

SAMPLES = 24


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


@pytest.fixture(scope="module")
def server():
    with start_simulator(faults="hallucinate:0.3,not_json:0.1,refusal:0.05", latency_seconds=0.02) as server:
        yield server


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run of two shards that has ended with rejected tries; to be looked at only."""
    store = open_store(str(tmp_path_factory.mktemp("ended") / "run"))
    with start_simulator(faults="hallucinate:0.3,not_json:0.1,refusal@5-12", latency_seconds=0.02) as server:
        generated(store, server)
    return store


def generated(store: Store, server: Any, shards: int = 2, **more: Any) -> None:
    teacher = simulated(server, prices=Prices(input=1.0, output=4.0))
    planned(store, teacher, samples=SAMPLES, shards=shards, budget_usd=5.0, judges=Judges(share=0.5).model_dump(), **more)
    for shard in range(shards):
        Worker(store, teacher, budget_usd=5.0).run(shard)


def known_calls(store: Store, shard: int) -> list[dict[str, Any]]:
    return tables.decode(store.read(layout.shard_file(shard, "calls.parquet")))


def test_an_open_shard_shows_what_its_tables_will(store: Store, server: Any) -> None:
    teacher = simulated(server, prices=Prices(input=1.0, output=4.0), max_concurrency=3)
    planned(store, teacher, samples=SAMPLES, budget_usd=5.0, judges=Judges(share=0.5).model_dump())
    half = Worker(store, teacher, budget_usd=5.0, progress_seconds=0.0)
    with pytest.raises(StoppedError):
        half.run(0, on_progress=lambda progress: progress["accepted"] > 5 and half.stop.set())
    ids = [sample_id(index) for index in range(SAMPLES)]
    before = open_run(store)
    open_samples = {one: sample(before, one) for one in ids}
    open_rows, open_rejects = list(accepted_rows(before)), list(rejected_tries(before))
    (shard,) = overview(before)["shards"]
    assert shard["state"] == "stopped" and 5 < shard["accepted"] < SAMPLES
    assert {found["state"] for found in open_samples.values()} >= {"accepted", "open"}
    Worker(store, teacher, budget_usd=5.0).run(0)
    assert not store.list_files(layout.journal_folder(0))
    after = open_run(store)
    ended = 0
    for one, was in open_samples.items():
        now = sample(after, one)
        assert [call for call in now["calls"] if call in was["calls"]] == was["calls"], "what was known stays"
        if was["row"]:
            assert was == now
            ended += 1
        else:
            assert now["rejected"][: len(was["rejected"])] == was["rejected"]
    assert ended == len(open_rows) > 5
    rows, rejects = list(accepted_rows(after)), list(rejected_tries(after))
    assert sorted(open_rows, key=str) == sorted((row for row in rows if row in open_rows), key=str)
    assert all(row in rejects for row in open_rejects) and rejects
    assert len(rows) == overview(after)["shards"][0]["accepted"]
    assert sum(overview(after)["reasons"].values()) == len(rejects)


def test_every_call_is_shown_with_its_teacher_cost_and_duration(ended: Store) -> None:
    run = open_run(ended)
    shown = [call for index in range(SAMPLES) for call in sample(run, sample_id(index))["calls"]]
    calls = [call for shard in range(2) for call in known_calls(ended, shard)]
    assert sorted(call["key"] for call in shown) == sorted(call["key"] for call in calls)
    assert 0 < sum(call["cost_usd"] for call in shown) == pytest.approx(sum(call["cost_usd"] for call in calls))
    assert all(call["seconds"] >= 0.02 * call["attempts"] and call["teacher"] == "simulator" for call in shown)


def test_a_list_holds_the_rows_of_its_topic_and_the_tries_of_its_reason(ended: Store) -> None:
    run = open_run(ended)
    everything = [row for shard in range(2) for row in tables.decode(ended.read(layout.shard_file(shard, "rejected.parquet")))]
    reason = everything[0]["reason"]
    found = list(rejected_tries(run, reason=reason))
    assert [(row["sample_id"], row["variation"]) for row in found] == [
        (row["sample_id"], row["variation"]) for row in everything if row["reason"] == reason
    ]
    assert {row["topic"] for row in accepted_rows(run, topic="gout")} == {"gout"}
    assert list(rejected_tries(run, reason="no such reason")) == []


def test_a_sample_is_found_by_index_id_beginning_and_its_own_id(tmp_path: Path, ended: Store) -> None:
    run = open_run(ended)
    assert find(run, "7") == find(run, "000000007") == "000000007"
    with pytest.raises(UsageError, match=r"begins 000000010, .*000000019; give more"):
        find(run, "00000001")
    with pytest.raises(UsageError, match="and more"):
        find(run, "00")
    for wanted in ("24", "000000024", "visit-1", "9999999999"):
        with pytest.raises(UsageError, match=r"no sample under .*; the run's are 000000000 to 000000023"):
            find(run, wanted)
    with pytest.raises(ConfigError, match="is no run"):
        open_run(open_store(str(tmp_path / "nowhere")))


def test_an_imported_conversation_is_found_by_its_own_id_and_listed_before_its_shard_ends(
    tmp_path: Path, server: Any, ended: Store
) -> None:
    calls = [call for shard in range(2) for call in known_calls(ended, shard)]
    texts = [call["text"] for call in calls if call["step"] == "conversation"]
    visits = tmp_path / "visits.jsonl"
    visits.write_text("".join(json.dumps({"id": f"visit-{place}", "text": text}) + "\n" for place, text in enumerate(texts)))
    columns = Columns(conversation="text", id="id")
    source = ConversationSource(files=tuple(survey([str(visits)], columns)), columns=columns, contains_phi=False)
    teacher = simulated(server, max_concurrency=2)
    store = open_store(str(tmp_path / "imported"))
    planned(store, teacher, samples=None, source=source)
    half = Worker(store, teacher, progress_seconds=0.0)
    with pytest.raises(StoppedError):
        half.run(0, on_progress=lambda progress: progress["accepted"] > 2 and half.stop.set())
    before = list(accepted_rows(open_run(store)))
    assert before and all(row["source_id"].startswith("visit-") for row in before)
    Worker(store, teacher).run(0)
    run = open_run(store)
    assert all(row in list(accepted_rows(run)) for row in before)
    assert sample(run, find(run, "visit-3"))["row"]["source_id"] == "visit-3"


def test_split_and_what_each_student_answered_stand_beside_the_sample(folder: Store, server: Any) -> None:
    generated(folder, server)
    data_set = build_data_set(folder)
    run = open_run(folder)
    splits = {index: sample(run, sample_id(index))["data_set"] for index in range(SAMPLES)}
    for split in layout.SPLITS:
        assert sum(bool(one) and one["split"] == split for one in splits.values()) == data_set.counts[split]
    row = next(tables.stream(folder, [file for file in data_set.files if "/train-" in file.path]))
    gold = json.loads(row["output"])
    wrong = {**gold, "patient_details": {**gold["patient_details"], "age": "199"}}
    write_answer(folder, "small", row, gold, wrong)
    found = sample(Run(folder), row["sample_id"])
    (answer,) = found["predictions"]
    assert answer["student"] == "small" and 0.5 < answer["f1"] < 1
    lines = list(sample_sheet(found, {}, PATIENT_RECORD, 120))
    assert "  + patient_details.age: 199" in lines
    assert f"  - patient_details.age: {gold['patient_details']['age']}" in lines


def write_answer(store: Store, student: str, row: dict[str, Any], gold: dict[str, Any], said: dict[str, Any]) -> None:
    found = [Prediction(record=said, raw_text=json.dumps(said), valid_json=True)]
    rows = prediction_rows([row], [Reference(gold, "simulator")], {"student": found}, PATIENT_RECORD)
    folder = f"{layout.student_folder(student)}/evaluate"
    file = tables.write(store, f"{folder}/predictions.parquet", rows, tables.PREDICTION_COLUMNS)
    manifests.write(store, f"{folder}/manifest.json", Manifest(stage="evaluate", plan_hash="", config_hash="", files=(file,)))


def test_the_command_shows_a_run_in_a_folder_and_in_an_archive(tmp_path: Path, ended: Store) -> None:
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as archive:
        for path in Path(ended.url).rglob("*"):
            archive.write(path, f"flu/{path.relative_to(ended.url)}")
    for prefix in (ended.url, f"zip://flu::{tmp_path / 'run.zip'}"):
        shown = medkd("inspect", "--prefix", prefix)
        assert shown.returncode == 0 and "all    2 complete" in shown.stdout and shown.stderr == "", shown.stderr
        one = medkd("inspect", "--prefix", prefix, "--sample", "3")
        assert one.returncode == 0 and one.stderr == "", "nothing goes to the log"
        for word in ("sample 000000003, shard 0", "   0  Doctor: ", "extraction", "clinic-1", "patient_details.age"):
            assert word in one.stdout
        parsed = json.loads(medkd("inspect", "--prefix", prefix, "--sample", "3", "--json").stdout)
        assert parsed["row"]["input"] and len(parsed["calls"]) >= 2
        few = medkd("inspect", "--prefix", prefix, "--rejected", "--limit", "2", "--json")
        assert len([json.loads(line) for line in few.stdout.splitlines()]) == 2 and "more than 2" in few.stderr
    run = ("inspect", "--prefix", ended.url)
    refused(medkd(*run, "--sample", "99"), 64, "--sample: got '99'")
    refused(medkd(*run, "--sample", "9", "--rejected"), 64, "--sample: shows one sample whole")
    assert medkd(*run, "--reason", "nothing").stdout == "none\n"


def test_what_a_teacher_wrote_cannot_steer_the_terminal(ended: Store) -> None:
    found = sample(open_run(ended), sample_id(0))
    chance = random.Random(1)
    evil = "\x1b]0;owned\x07\x1b[2J\u202e"
    for call in found["calls"]:
        call |= {"served_model": evil, "finish": evil, "reason": evil}
    found["rejected"] = [
        {"variation": 0, "reason": evil, "detail": evil, "raw_text": evil, "attempts": 1, "cost_usd": 0.0, "conversation": evil}
    ]
    found["row"]["input"] = "".join(f"Doctor: {evil}{chance.random()}\n" for _ in range(3))
    text = "\n".join(sample_sheet(found, {}, PATIENT_RECORD, 100))
    assert "owned" in text and not {"\x1b", "\x07", "\u202e"} & set(text)
