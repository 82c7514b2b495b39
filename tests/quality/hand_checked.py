"""Records written by hand for real dialogues (MTS-Dialog, training set): what the checker of records must not complain about.

`data/mts_dialog_records.jsonl` names dialogues by their id and holds no text of theirs; the dialogues come from the folder in
MEDKD_MTS_DIALOG. A field that a record leaves out says NOT PROVIDED.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medkd.quality.grounding import ground
from medkd.quality.schema import parse_record
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record

RECORDS = Path(__file__).parent / "data" / "mts_dialog_records.jsonl"


def hand_checked(folder: Path) -> Iterator[tuple[str, str, Record]]:
    """(id, dialogue, record) of each."""
    with (folder / "MTS-Dialog-TrainingSet.csv").open(newline="", encoding="utf-8") as file:
        dialogues = {row["ID"]: row["dialogue"] for row in csv.DictReader(file)}
    for line in RECORDS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["id"], dialogues[row["id"]], parse_record(json.dumps(_whole(row["record"])), PATIENT_RECORD)


def false_alarms(folder: Path) -> dict[str, Any]:
    """How many of the records' values are reported although their dialogue says them, and which."""
    records = values = 0
    reported = []
    for number, dialogue, record in hand_checked(folder):
        records += 1
        values += sum(value != NOT_PROVIDED for _, value in PATIENT_RECORD.values(record))
        reported += [(number, path, value) for path, value in ground(record, dialogue, PATIENT_RECORD).unsupported]
    return {"records": records, "values": values, "false_alarms": len(reported), "reported": reported}


def _whole(partial: Record) -> Record:
    record = PATIENT_RECORD.empty()
    for group, fields in partial.items():
        if group == "prescription":
            members = ("drug", "dose", "frequency", "duration")
            record[group] = [{name: item.get(name, NOT_PROVIDED) for name in members} for item in fields]
        else:
            record[group] |= fields
    return record
