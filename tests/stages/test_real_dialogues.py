"""Real doctor-patient dialogues (MTS-Dialog) as a run's input: none is lost, ids and every character are kept."""

from __future__ import annotations

import csv
import json
import os
import threading
from pathlib import Path

import pytest

from medkd.commands.flags import build_parser
from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from medkd.stages.plan import ConversationSource
from medkd.stages.prepare import build_data_set, read_splits
from medkd.store import tables
from medkd.store.conversations import Columns, survey
from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator
from tests.quality.hand_checked import hand_checked
from tests.quality.written_run import write_run
from tests.student.trained import tiny_student

FOLDER = os.environ.get("MEDKD_MTS_DIALOG")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set MEDKD_MTS_DIALOG to a folder with the MTS-Dialog CSV files")


def test_every_dialogue_is_accepted_or_rejected_with_its_reason_and_keeps_id_and_text() -> None:
    source_rows = [row for file in sorted(Path(str(FOLDER)).glob("*.csv")) for row in csv.DictReader(file.open(newline=""))]
    columns = Columns(conversation="dialogue", id="ID", topic="section_header")
    source = ConversationSource(files=tuple(survey([str(FOLDER)], columns)), columns=columns, contains_phi=False)
    store = open_store("memory://mts")
    with start_simulator() as server:
        teacher = simulated(server, max_concurrency=16)
        planned(store, teacher, samples=None, shards=3, source=source)
        manifests = [Worker(store, teacher).run(shard) for shard in range(3)]
    accepted = [row for manifest in manifests for row in tables.read(store, [manifest.files[0]])]
    rejected = [row for manifest in manifests for row in tables.read(store, [manifest.files[1]])]
    ended = {
        row["sample_id"]: (row["source_id"], row["topic"], row.get("input") or row["conversation"]) for row in accepted + rejected
    }
    assert len(ended) == len(source_rows) == 1301
    for number, row in enumerate(source_rows):
        assert ended[f"{number:09d}"] == (row["ID"], row["section_header"], row["dialogue"])
    assert all(row["reason"] and row["detail"] for row in rejected)
    assert len(accepted) > 1250
    data_set = build_data_set(store)
    splits = read_splits(store, data_set)
    assert sum(len(rows) for rows in splits.values()) + data_set.counts["duplicates"] == len(accepted)
    texts = {row["sample_id"]: row["input"] for rows in splits.values() for row in rows}
    assert all(texts[row["sample_id"]] == row["input"] for row in accepted if row["sample_id"] in texts)


@pytest.mark.torch
@pytest.mark.timeout(300)
def test_hand_checked_records_are_a_set_for_any_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The dialogues as they are published, the records by their ids; a student with random weights, beside baselines of a run."""
    import torch

    from medkd.student.models import make_model
    from medkd.student.tokens import build_tokenizer

    known = list(hand_checked(Path(str(FOLDER))))
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps({"id": one, "record": record}) + "\n" for one, _, record in known))
    run = open_store(str(tmp_path / "run"))
    write_run(run, num_samples=60, topics=["asthma", "gout"], moods=["calm"])
    student = tiny_student("t5", max_answer_length=32)
    texts = [{"input": dialogue, "output": PATIENT_RECORD.canonical(record)} for _, dialogue, record in known]
    tokenizer = build_tokenizer(run, student, texts, PATIENT_RECORD, tmp_path)
    make_model(run, student, tokenizer, scratch=tmp_path, seed=1, dtype=torch.float32).save_pretrained(tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    before = {file.path for file in run.list_files()}
    flags = ["--conversation-column", "dialogue", "--id-column", "ID", "--topic-column", "section_header"]
    files = [
        "--conversations",
        f"{FOLDER}/MTS-Dialog-TrainingSet.csv",
        "--gold",
        str(tmp_path / "gold.jsonl"),
        "--set-name",
        "mts",
    ]
    args = build_parser().parse_args(
        ["evaluate", "--prefix", run.url, "--student", "mine", "--model", str(tmp_path / "model"), *files, *flags]
    )
    assert args.verb(args, threading.Event()) == 0
    folder = "students/mine/evaluate/mts"
    assert {file.path for file in run.list_files()} - before == {
        f"{folder}/{name}" for name in ("scores.json", "predictions.parquet", "manifest.json")
    }
    scores = json.loads(run.read(f"{folder}/scores.json"))
    assert (scores["reference"], scores["num_samples"], scores["counts"]["left_out"]) == ("human", 49, {"no_gold": 1152})
    assert set(scores["scores"]) == {"student", "constant", "lexicon"}
    expected = sum(value != NOT_PROVIDED for _, _, record in known for _, value in PATIENT_RECORD.values(record))
    assert {one["micro"]["expected"] for one in scores["scores"].values()} == {expected}
    assert {row["topic"] for row in scores["by_topic"]} > {"MEDICATIONS", "ALLERGY"}
    predictions = tables.decode(run.read(f"{folder}/predictions.parquet"))
    assert {row["sample_id"] for row in predictions if row["model"] == "student"} == {one for one, _, _ in known}
    printed = capsys.readouterr().out
    assert "against records written by people, 49 conversations" in printed and "left out: 1,152 rows, no gold" in printed
