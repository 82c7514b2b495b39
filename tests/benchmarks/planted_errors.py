"""Precision and recall of the checker of records, by kind of error: `python -m tests.benchmarks.planted_errors 2000`.

Half of the records say what their simulated conversation says, the other half get one error each. An error counts as found where
the value that was put in is reported, a false alarm is a true value that is reported. Every kind of error has a plausible value:
another drug of the formulary, another dose that is said of another drug, a condition that the conversation denies.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medkd.quality.grounding import ground
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record
from medkd.simulator.dialogue import speak
from medkd.simulator.encounters import Case, draw_facts
from medkd.simulator.formulary import DRUGS
from tests.quality.hand_checked import false_alarms

TOPICS = ("asthma", "gout", "GERD", "migraine", "hypertension", "type 2 diabetes", "pneumonia", "eczema")
MOODS = ("calm", "anxious", "irritated", "tired")
STYLES = ("brief", "rambling", "precise", "hesitant", "chatty", "worried about details")
DENIED = ("heart disease", "kidney disease", "thyroid problems", "a stroke", "epilepsy", "liver disease", "cancer", "asthma")

Planted = tuple[Record, str, str, str]
"""Record, conversation, and the path and value that are wrong."""


def encounter(chance: random.Random) -> tuple[str, Record]:
    case = Case(
        topic=chance.choice(TOPICS),
        mood=chance.choice(MOODS),
        exchanges=chance.randint(6, 10),
        age=chance.randint(18, 88),
        sex=None,
        style=chance.choice(STYLES),
    )
    spoken = speak(case, draw_facts(case, chance), chance)
    return spoken.conversation, spoken.record


def denied_condition(conversation: str, record: Record, chance: random.Random) -> tuple[str, str]:
    """The conversation with a condition that is asked for and denied, or denied by the patient, and which one."""
    known = " ".join(value for _, value in PATIENT_RECORD.values(record)).lower()
    condition = chance.choice([name for name in DENIED if name.removeprefix("a ") not in known])
    said = chance.choice(
        (
            f"Doctor: Any history of {condition}?\nPatient: No.",
            f"Doctor: Have you ever had {condition}?\nPatient: No, never.",
            f"Doctor: Anything else that I should know?\nPatient: No history of {condition}, if you mean that.",
            f"Doctor: And otherwise?\nPatient: I've never had {condition}.",
            f"Doctor: Your chart says that you deny {condition}.\nPatient: That's right.",
            f"Doctor: Do you have {condition}?\nPatient: Not that I know of.",
        )
    )
    return _inserted(conversation, said, chance), condition.removeprefix("a ")


def family_condition(conversation: str, record: Record, chance: random.Random) -> tuple[str, str]:
    known = " ".join(value for _, value in PATIENT_RECORD.values(record)).lower()
    condition = chance.choice([name for name in DENIED if name.removeprefix("a ") not in known])
    who = chance.choice(("mother", "father", "brother", "grandmother", "uncle"))
    said = chance.choice(
        (
            f"Doctor: What about your parents and siblings?\nPatient: My {who} had {condition}.",
            f"Doctor: Does anything run in the family?\nPatient: Yes, {condition}, on both sides.",
            f"Doctor: Anything else?\nPatient: {condition.capitalize()} runs in my family.",
            f"Doctor: And your relatives?\nPatient: Well, my {who} was diagnosed with {condition} a few years ago.",
        )
    )
    return _inserted(conversation, said, chance), condition.removeprefix("a ")


def _inserted(conversation: str, said: str, chance: random.Random) -> str:
    """The exchange put between two others."""
    lines = conversation.split("\n")
    places = [place for place, line in enumerate(lines) if place > 2 and line.startswith("Doctor:")]
    place = chance.choice(places)
    return "\n".join([*lines[:place], said, *lines[place:]])


def drug_swapped(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    if not record["prescription"]:
        return None
    item = chance.choice(record["prescription"])
    names = [medicine for medicine in sorted(DRUGS) if medicine.lower() not in conversation.lower()]
    item["drug"] = chance.choice(names)
    return record, conversation, "prescription[].drug", item["drug"]


def dose_changed(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    items = [item for item in record["prescription"] if re.match(r"^[\d.]+ ", item["dose"])]
    if not items:
        return None
    item = chance.choice(items)
    number, _, unit = item["dose"].partition(" ")
    factor = chance.choice((0.1, 0.5, 2, 10, 1.5))
    item["dose"] = f"{float(number) * factor:g} {unit}"
    return record, conversation, "prescription[].dose", item["dose"]


def dose_of_another(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    items = record["prescription"]
    if len(items) < 2 or len({item["dose"] for item in items}) < 2 or NOT_PROVIDED in {item["dose"] for item in items}:
        return None
    items[0]["dose"], items[1]["dose"] = items[1]["dose"], items[0]["dose"]
    return record, conversation, "prescription[].dose", items[0]["dose"]


def unit_changed(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    items = [item for item in record["prescription"] if item["dose"].endswith((" mg", " mcg", " ml", " g", " units"))]
    if not items:
        return None
    item = chance.choice(items)
    number, _, unit = item["dose"].partition(" ")
    item["dose"] = f"{number} {chance.choice([other for other in ('mg', 'mcg', 'g', 'ml') if other != unit])}"
    return record, conversation, "prescription[].dose", item["dose"]


def age_off(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    if record["patient_details"]["age"] == NOT_PROVIDED:
        return None
    off = chance.choice((-10, -3, -2, -1, 1, 2, 3, 10))
    record["patient_details"]["age"] = str(int(record["patient_details"]["age"]) + off)
    return record, conversation, "patient_details.age", record["patient_details"]["age"]


def allergy_invented(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    names = ("penicillin", "latex", "sulfa drugs", "peanuts", "shellfish", "aspirin", "iodine", "eggs")
    free = [name for name in names if name.split()[0] not in conversation.lower()]
    allergy = chance.choice(free)
    record["medical_history"]["allergies"] = [allergy]
    return record, conversation, "medical_history.allergies", allergy


def negation_ignored(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    conversation, condition = denied_condition(conversation, record, chance)
    _add_condition(record, condition)
    return record, conversation, "medical_history.conditions", condition


def family_taken_for_patient(conversation: str, record: Record, chance: random.Random) -> Planted | None:
    conversation, condition = family_condition(conversation, record, chance)
    _add_condition(record, condition)
    return record, conversation, "medical_history.conditions", condition


def _add_condition(record: Record, condition: str) -> None:
    conditions = [value for value in record["medical_history"]["conditions"] if value != "none"]
    record["medical_history"]["conditions"] = [*conditions, condition]


KINDS: dict[str, Callable[[str, Record, random.Random], Planted | None]] = {
    "drug swapped": drug_swapped,
    "dose changed": dose_changed,
    "dose of another drug": dose_of_another,
    "unit changed": unit_changed,
    "age off": age_off,
    "allergy invented": allergy_invented,
    "negation ignored": negation_ignored,
    "family's illness": family_taken_for_patient,
}


def measure(num_records: int, seed: int = 11, show: int = 0) -> dict[str, Any]:
    """Recall by kind of error on as many planted records, and how many of as many clean records raise a false alarm."""
    chance = random.Random(seed)
    planted, found, alarms = Counter[str](), Counter[str](), 0
    kinds = list(KINDS)
    while planted.total() < num_records:
        kind = kinds[planted.total() % len(kinds)]
        conversation, record = encounter(chance)
        error = KINDS[kind](conversation, copy.deepcopy(record), chance)
        if error is None:
            continue
        wrong, text, path, value = error
        unsupported = ground(wrong, text, PATIENT_RECORD).unsupported
        planted[kind] += 1
        found[kind] += (path, value) in unsupported
        if show and (path, value) not in unsupported:
            show -= 1
            print(f"--- missed, {kind}: {path} {value}\n{text}", file=sys.stderr)
    clean = false_alarms = 0
    by_path = Counter[str]()
    for index in range(num_records):
        conversation, record = encounter(chance)
        # What is denied or the family's is said in the clean conversations, too, and is not in their records.
        if index % 3 == 0:
            conversation, _ = denied_condition(conversation, record, chance)
        elif index % 3 == 1:
            conversation, _ = family_condition(conversation, record, chance)
        unsupported = ground(record, conversation, PATIENT_RECORD).unsupported
        clean += 1
        false_alarms += bool(unsupported)
        alarms += len(unsupported)
        by_path.update(path for path, _ in unsupported)
        if show and unsupported:
            show -= 1
            print(f"--- false alarm: {unsupported}\n{conversation}", file=sys.stderr)
    return {
        "planted": planted.total(),
        "recall": {kind: round(found[kind] / planted[kind], 4) for kind in kinds if planted[kind]},
        "recall_all": round(found.total() / planted.total(), 4),
        "clean": clean,
        "false_alarms": false_alarms,
        "false_alarms_by_field": dict(by_path),
        "precision": round(found.total() / max(1, found.total() + alarms), 4),
    }


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(json.dumps(measure(size, show=int(sys.argv[2]) if len(sys.argv) > 2 else 0), indent=1))
    if folder := os.environ.get("MEDKD_MTS_DIALOG"):
        print(json.dumps({"hand-checked records of real dialogues": false_alarms(Path(folder))}, indent=1))


if __name__ == "__main__":
    main()
