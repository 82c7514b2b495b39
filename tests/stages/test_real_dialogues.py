"""Real doctor-patient dialogues (MTS-Dialog) as a run's input: none is lost, ids and every character are kept."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from medkd.stages.plan import ConversationSource
from medkd.stages.prepare import build_data_set, read_splits
from medkd.store import tables
from medkd.store.conversations import Columns, survey
from medkd.store.files import open_store
from tests.generation import Worker, planned, simulated, start_simulator

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
