"""A team's own record, medication orders, through the whole pipeline: plan, prompts, checks, data set, student, scores."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medkd import config
from medkd.errors import ConfigError
from medkd.quality.score_sets import Reference, score_sets
from medkd.records import PATIENT_RECORD
from medkd.samples import numbered, turns
from medkd.schema_documents import document_of
from medkd.simulator.server import Server
from medkd.stages import answers, external
from medkd.stages.lent import find_lent
from medkd.stages.plan import load_plan, parse_plan
from medkd.stages.prepare import prepare, read_splits, write_tokens
from medkd.store import layout, manifests
from medkd.store.conversations import ImportedRow
from medkd.store.files import Store, open_store
from medkd.store.gold_files import Gold
from medkd.store.gold_files import read as read_gold
from medkd.store.manifests import Manifest
from medkd.student.tokenizer import StudentTokenizer
from tests.generation import Worker, planned, simulated, start_simulator
from tests.schema_strategy import ORDERS
from tests.student import trained

SAMPLES = 40


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gold") / "gold.jsonl"


@pytest.fixture(scope="module")
def server(gold: Path) -> Iterator[Server]:
    with start_simulator(write_gold=gold) as server:
        yield server


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run of medication orders up to its data set and the tokens of tiny-t5."""
    store, teacher = open_store(str(tmp_path_factory.mktemp("orders"))), simulated(server)
    planned(store, teacher, samples=SAMPLES, shards=2, schema=ORDERS)
    for shard in range(2):
        Worker(store, teacher).run(shard)
    prepare(store, "tiny-t5", config.load(None).student("tiny-t5"))
    return store


def rows_of(run: Store) -> dict[str, list[dict[str, Any]]]:
    return read_splits(run, manifests.require(run, layout.DATASET_MANIFEST, "prepare"))


def test_the_plan_holds_the_schema_and_its_hash_depends_on_it(run: Store) -> None:
    plan = load_plan(run)[0]
    assert (plan.schema, plan.record_schema) == (ORDERS, document_of(ORDERS))
    assert replace(plan, record_schema=document_of(replace(ORDERS, version=3))).hash != plan.hash
    assert parse_plan(run.read(layout.PLAN)).hash == plan.hash


def test_a_plan_of_the_patient_record_reads_as_it_always_did(server: Server) -> None:
    plan, _ = planned(open_store("memory://patients"), simulated(server))
    assert plan.as_json()["record_schema"] == "patient_record"
    assert plan.schema is PATIENT_RECORD


def test_a_plan_whose_schema_this_medkd_cannot_read_says_so(run: Store) -> None:
    raw = json.loads(run.read(layout.PLAN))
    for wrong, said in (({"title": "x"}, "x-medkd: got None"), ("unheard", "known: patient_record")):
        plan = parse_plan(json.dumps({**raw, "record_schema": wrong}).encode())
        with pytest.raises(ConfigError, match=said):
            plan.schema  # noqa: B018


def test_every_accepted_row_holds_orders_that_its_conversation_gives(run: Store, gold: Path) -> None:
    truth = read_gold(str(gold)).by_conversation
    rows = [row for split in rows_of(run).values() for row in split]
    assert len(rows) > SAMPLES / 2
    assert {row["instruction"] for row in rows} == {ORDERS.task}
    kinds = set()
    for row in rows:
        orders = json.loads(row["output"])["orders"]
        # The simulated teacher reads carefully; it and the truth may only differ in what was misheard.
        assert len(orders) == len(truth[row["conversation_sha256"]]["orders"])
        for order in orders:
            said = [turns(row["input"])[int(number) - 1] for number in order["supporting_turns"]]
            assert said and all(turn.speaker == "Doctor" and order["description"].split()[0] in turn.text for turn in said)
            kinds.add(order["type"])
        evidence = {found["field"]: found["turns"] for found in row["evidence"]}
        assert set(evidence) <= set(ORDERS.leaves()) - {"orders[].type"}
    assert kinds == {"medication"}


def test_statistics_and_card_speak_of_the_schemas_fields(run: Store) -> None:
    statistics = json.loads(run.read(f"{layout.DATASET}/statistics.json"))
    assert list(statistics["share_stated"]) == list(ORDERS.leaves())
    assert statistics["share_stated"]["orders[].description"] > 0.5


def test_the_student_reads_numbered_turns_and_keeps_the_schema(run: Store, tmp_path: Path) -> None:
    run.download("students/tiny-t5/tokens/tokenizer", tmp_path)
    tokenizer = StudentTokenizer.load(tmp_path)
    assert tokenizer.form.fields == ORDERS
    row = rows_of(run)["train"][0]
    example = tokenizer.example(row["input"], json.loads(row["output"]))
    assert tokenizer.decode(example.input_ids).startswith("1. Doctor:")
    assert tokenizer.record(tokenizer.decode([label for label in example.labels if label >= 0])) == json.loads(row["output"])


def test_baselines_are_scored_field_by_field_against_the_truth(run: Store, gold: Path) -> None:
    truth, splits = read_gold(str(gold)).by_conversation, rows_of(run)
    train = [(row["input"], json.loads(row["output"])) for row in splits["train"]]
    tested = splits["test"] + splits["validation"]
    references = [Reference(truth[row["conversation_sha256"]], "simulator") for row in tested]
    found = answers.baselines(train, [row["input"] for row in tested], ORDERS)
    exact = [answers.certain(reference.record, ORDERS) for reference in references]
    scores = score_sets(tested, references, {"student": exact, **found}, ORDERS)
    assert scores["scores"]["student"]["micro"]["f1"] == 1.0
    assert set(scores["scores"]["lexicon"]["fields"]) == set(ORDERS.leaves())
    assert scores["scores"]["constant"]["micro"]["f1"] < 1.0


def test_gold_from_elsewhere_has_to_be_of_the_students_schema() -> None:
    right, wrong = {"orders": []}, PATIENT_RECORD.empty()
    texts = ["Doctor: Rest a while.\nPatient: Yes.", "Doctor: Rest more.\nPatient: No."]
    rows = [
        ImportedRow(conversation=text, source_id=str(number), record=None, topic="", gold=json.dumps(record))
        for number, (text, record) in enumerate(zip(texts, (right, wrong), strict=True))
    ]
    found = external.read_set("clinic", rows, Gold(), "human", ORDERS)
    assert [reference.record for reference in found.references] == [right]
    assert found.left_out == {"invalid_gold": 1}


def test_rows_of_another_schema_are_not_lent(run: Store, server: Server) -> None:
    store = open_store("memory://borrower-of-another-schema")
    planned(store, simulated(server), samples=0, shards=0)
    with pytest.raises(ConfigError, match="holds records of schema medication_orders, version 2; expected patient_record"):
        prepare(store, "tiny-t5", config.load(None).student("tiny-t5"), find_lent([run]))


def test_turns_are_numbered_as_they_are_counted() -> None:
    talk = "before\nDoctor: Hello.\n\n  and welcome\nPatient: Hi."
    assert numbered(talk) == "1. before\n2. Doctor: Hello.\n\n  and welcome\n3. Patient: Hi."
    assert len(turns(talk)) == 3


@pytest.mark.torch
@pytest.mark.timeout(600)
def test_a_student_learns_medication_orders_by_heart(run: Store, tmp_path: Path) -> None:
    from medkd.student.decode import Extractor

    rows = [row for row in rows_of(run)["train"] if json.loads(row["output"])["orders"]][:5]
    store, student = open_store(str(tmp_path / "run")), trained.tiny_student("t5", max_length=512)
    data_set = Manifest(stage="prepare", plan_hash="p" * 64, config_hash="", files=(), counts={"data_set_hash": "d" * 64})
    write_tokens(store, "own", student, {"train": rows, "validation": rows[:3], "test": rows}, ORDERS, data_set)
    assert trained.train(tmp_path, "own", student, ranks=1) == 0
    store.download("students/own/model", tmp_path / "model")
    extractor = Extractor.load(tmp_path / "model")
    found = answers.asked(extractor, [row["input"] for row in rows], name="own", most_tokens=None, stop=threading.Event())
    assert [one.record for one in found] == [json.loads(row["output"]) for row in rows]
    assert "writes the orders that the doctor gives in this visit" in (tmp_path / "model" / "README.md").read_text()
