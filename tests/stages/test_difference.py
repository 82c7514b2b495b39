"""Two runs beside each other, from their files: pairs by text, what is left out, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medkd.config import Prices
from medkd.errors import ConfigError, InputError, UsageError
from medkd.quality.differences import all_lines
from medkd.quality.score_sets import Prediction, Reference
from medkd.records import PATIENT_RECORD, Record
from medkd.schema_documents import document_of
from medkd.stages.answers import prediction_rows
from medkd.stages.difference import difference, side_of
from medkd.stages.external import read_set, set_folder, write_set
from medkd.stages.lent import LentDataSet
from medkd.stages.opened_run import open_run
from medkd.stages.prepare import build_data_set, stream_splits
from medkd.store import layout, manifests, tables
from medkd.store.conversations import ImportedRow
from medkd.store.files import Store, open_store
from medkd.store.gold_files import Gold
from medkd.store.manifests import Manifest
from tests.command_line import medkd, refused
from tests.generation import Worker, planned, simulated, start_simulator

SAMPLES = 150


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`first` has students good and bad; `grown` has first's rows and its own, under other ids, and a student; `other` shares
    nothing with them."""
    folder = tmp_path_factory.mktemp("runs")
    stores = {name: open_store(str(folder / name)) for name in ("first", "grown", "other")}
    with start_simulator() as server:
        teacher = simulated(server, prices=Prices(input=1.0, output=4.0))
        for seed, store in enumerate(stores.values()):
            planned(store, teacher, samples=SAMPLES, budget_usd=5.0, seed=seed + 1)
            Worker(store, teacher, budget_usd=5.0).run()
    first = build_data_set(stores["first"])
    build_data_set(stores["grown"], [LentDataSet(stores["first"], first)])
    build_data_set(stores["other"])
    answered(stores["first"], "good", "name")
    answered(stores["first"], "bad", "age")
    answered(stores["grown"], "good", None)
    answered(stores["other"], "good", None)
    return {name: folder / name for name in stores}


def answered(
    store: Store, student: str, forgets: str | None, source: str = "simulator", inputs: dict[str, str] | None = None
) -> None:
    """A student that knows everything but one detail."""
    data_set = manifests.require(store, layout.DATASET_MANIFEST, "prepare")
    rows = list(stream_splits(store, data_set, ("sample_id", "output"))["test"])
    golds = [json.loads(row["output"]) for row in rows]
    found = {"student": [said(gold, forgets) for gold in golds], "constant": [said(golds[0], None) for _ in golds]}
    references = [Reference(gold, source) for gold in golds]
    folder = f"{layout.student_folder(student)}/evaluate"
    written = prediction_rows(rows, references, found, PATIENT_RECORD)
    file = tables.write(store, f"{folder}/predictions.parquet", written, tables.PREDICTION_COLUMNS)
    manifest = Manifest(stage="evaluate", plan_hash="", config_hash="", files=(file,), inputs=inputs or {})
    manifests.write(store, f"{folder}/manifest.json", manifest)


def said(gold: Record, forgets: str | None) -> Prediction:
    details = {**gold["patient_details"], **({forgets: "NOT PROVIDED"} if forgets else {})}
    record = {**gold, "patient_details": details}
    return Prediction(record=record, raw_text=PATIENT_RECORD.canonical(record), valid_json=True)


def texts_of(path: Path) -> set[str]:
    data_set = manifests.require(open_store(str(path)), layout.DATASET_MANIFEST, "prepare")
    return {row["input"] for row in stream_splits(open_store(str(path)), data_set, ("input",))["test"]}


def side(path: Path, student: str | None = None) -> Any:
    return side_of(open_run(open_store(str(path))), student)


def test_two_students_of_one_run_differ_where_they_answer_differently(runs: dict[str, Path]) -> None:
    found = difference(side(runs["first"], "good"), side(runs["first"], "bad"))
    fields = {row["name"]: row["verdict"] for row in found["scores"]["usual_topics"]["fields"]}
    assert fields.pop("patient_details.name") == "better" and fields.pop("patient_details.age") == "worse"
    assert set(fields.values()) == {"not shown"}
    assert found["scores"]["usual_topics"]["num_pairs"] == len(texts_of(runs["first"]))
    assert found["scores"]["left_out"] == {} and found["plan"] == [] and len(found["generation"]) == 1


def test_runs_are_paired_by_text_whatever_their_ids_and_what_one_has_alone_is_counted(runs: dict[str, Path]) -> None:
    found = difference(side(runs["first"], "bad"), side(runs["grown"]))
    shared, both = texts_of(runs["first"]) & texts_of(runs["grown"]), [len(texts_of(runs[name])) for name in ("first", "grown")]
    assert 0 < len(shared) < both[1]
    scores = found["scores"]
    assert scores["usual_topics"]["num_pairs"] == len(shared) and scores["tested"] == both
    alone = {"answered by a alone": both[0] - len(shared), "answered by b alone": both[1] - len(shared)}
    assert scores["left_out"] == {why: count for why, count in alone.items() if count}
    assert "seed" in {row["name"] for row in found["plan"]}
    shards = [json.loads((runs[name] / "generate/shard-00000/manifest.json").read_text()) for name in ("first", "grown")]
    for one, shard in zip(found["generation"], shards, strict=True):
        accepted, tries = shard["counts"]["accepted"], shard["counts"]["accepted"] + shard["counts"]["rejected"]
        assert one["acceptance"] == accepted / tries
        assert one["cost_per_accepted_usd"] == pytest.approx(shard["money"]["spent_usd"] / accepted)


def test_students_that_were_not_decoded_alike_are_said_to_be_so(runs: dict[str, Path]) -> None:
    answered(open_store(str(runs["first"])), "held", "name", inputs={"decoding": "constrained"})
    found = difference(side(runs["first"], "good"), side(runs["first"], "held"))
    assert found["scores"]["decoding"] == ["free", "constrained"]
    assert "not decoded alike: a was free, b was constrained" in "\n".join(all_lines(found))
    alike = difference(side(runs["first"], "good"), side(runs["first"], "bad"))
    assert "decoded" not in "\n".join(all_lines(alike))


def test_a_conversation_with_another_reference_is_left_out(runs: dict[str, Path]) -> None:
    answered(open_store(str(runs["first"])), "judged", None, source="human")
    with pytest.raises(InputError, match="none with the same reference"):
        difference(side(runs["first"], "good"), side(runs["first"], "judged"))


def test_what_cannot_be_compared_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="share none; compare students of one data set"):
        difference(side(runs["first"], "good"), side(runs["other"]))
    with pytest.raises(UsageError, match="has students bad, "):
        side(runs["first"])
    with pytest.raises(ConfigError, match="student 'best' has no scores; evaluated are bad, good"):
        side(runs["first"], "best")
    form = {
        "family": "causal",
        "schema": "order",
        "schema_version": 1,
        "escapes": {"sign": "|", "codes": {}, "loses_spaces": False},
        "max_length": 9,
    }
    document = {**document_of(PATIENT_RECORD), "title": "order"}
    store = open_store(str(runs["first"]))
    answered(store, "foreign", None)
    store.replace(
        f"{layout.student_folder('foreign')}/model/medkd.json",
        json.dumps({**form, "max_answer_length": 9, "record_schema": document}).encode(),
    )
    with pytest.raises(ConfigError, match="different record schemas, patient_record 1 and order 1"):
        difference(side(runs["first"], "good"), side(runs["first"], "foreign"))


def test_the_command_prints_the_table_and_the_sentence(runs: dict[str, Path]) -> None:
    first = str(runs["first"])
    shown = medkd("diff", first, "--student", "good,bad")
    assert shown.returncode == 0, shown.stderr
    for words in ("patient_details.age", "95% interval", "better in 1 and worse in 1 of", "paired conversations", "Bonferroni"):
        assert words in shown.stdout
    named = medkd("diff", f"{first}#good", f"{first}#bad", "--json")
    assert json.loads(named.stdout)["scores"]["usual_topics"]["compared"] > 10
    refused(medkd("diff", f"{first}#good", str(runs["other"])), 65, "share none")
    refused(medkd("diff", first), 64, "diff: got one run")
    refused(medkd("diff", f"{first}#good", f"{first}#good"), 64, "twice")
    refused(medkd("diff", f"{first}#good", first, "--student", "good,bad"), 64, "--student: is said twice")


def visits(runs: dict[str, Path], change: str = "") -> list[ImportedRow]:
    """A dozen of another run's conversations with their records; the last two share an id. change: said at their ends."""
    data_set = manifests.require(open_store(str(runs["other"])), layout.DATASET_MANIFEST, "prepare")
    rows = stream_splits(open_store(str(runs["other"])), data_set, ("input", "output"))["test"]
    return [
        ImportedRow(
            conversation=row["input"] + change, source_id=f"visit {min(number, 10)}", record=None, topic="", gold=row["output"]
        )
        for number, row in zip(range(12), rows, strict=False)
    ]


def only_planned(runs: dict[str, Path], folder: Path) -> Path:
    """Another run with the plan of one of them, and nothing else."""
    for name in (layout.PLAN, layout.LAYOUT, layout.PLAN_MANIFEST):
        open_store(str(folder)).replace(name, open_store(str(runs["other"])).read(name))
    return folder


def scored_on_set(run: Path, student: str, rows: list[ImportedRow], forgets: str | None, source: str = "human") -> None:
    """What `evaluate --conversations` leaves of a student that knows everything but one detail."""
    found, store = read_set("visits", rows, Gold(), source, PATIENT_RECORD), open_store(str(run))
    answers = {"student": [said(one.record, forgets) for one in found.references]}
    summary = {"set": found.name, "decoding": "free", "set_hash": found.hash, "counts": {}}
    predictions = prediction_rows(found.rows, found.references, answers, PATIENT_RECORD)
    write_set(store, set_folder(student, found.name), summary, predictions, {})


def test_a_set_from_elsewhere_is_compared_in_place_of_the_test_rows(runs: dict[str, Path], tmp_path: Path) -> None:
    first, elsewhere = runs["first"], only_planned(runs, tmp_path / "elsewhere")
    # That run has tested its student on nothing else.
    scored_on_set(elsewhere, "visitor", visits(runs), "age")
    scored_on_set(first, "good", visits(runs), "name")
    printed = medkd("diff", str(first), str(elsewhere), "--set", "visits")
    assert printed.returncode == 0, printed.stderr
    assert "on the set visits; against human's records; tested were 10 and 10 conversations" in printed.stdout
    assert "left out: 2 with an id that several conversations have" in printed.stdout
    found = json.loads(medkd("diff", f"{first}#good", f"{elsewhere}#visitor", "--set", "visits", "--json").stdout)["scores"]
    compared = {row["name"]: row["change"] for row in found["usual_topics"]["fields"] if row["change"]}
    assert compared["patient_details.name"] > 0 > compared["patient_details.age"] and len(compared) == 2
    assert (found["set"], found["usual_topics"]["num_pairs"]) == ("visits", 10)


def test_sets_that_cannot_be_compared_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    first, second, third = runs["first"], *(only_planned(runs, tmp_path / name) for name in ("second", "third"))
    scored_on_set(first, "good", visits(runs), None)
    for student in ("one", "two"):
        scored_on_set(second, student, visits(runs, "\nDoctor: Goodbye."), None)
    line = ["diff", f"{first}#good", str(second), "--set", "visits"]
    refused(medkd(*line), 64, "has students one, two; say which")
    refused(medkd(*line[:2], f"{second}#one", *line[3:]), 65, "hold other conversations, ids or records")
    refused(medkd(*line[:2], f"{first}#bad", *line[3:]), 78, "#bad was not scored on 'visits'; students scored on it are good")
    refused(medkd(*line[:2], str(runs["other"]), *line[3:]), 78, "a student of", "not scored on 'visits'; medkd evaluate")
    scored_on_set(third, "stranger", visits(runs), None, source="teacher")
    refused(medkd(*line[:2], str(third), *line[3:]), 65, "share 10 conversations, none with the same reference")
