"""The reader finds what is said, in the words it is said in, and nothing else."""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record
from medkd.simulator.number_words import spell, value_of
from medkd.simulator.reader import read_record
from tests.simulator.test_clinic import TOPICS, write


def pairs(record: Record) -> Counter[tuple[str, str]]:
    return Counter(pair for pair in PATIENT_RECORD.values(record) if pair[1] != NOT_PROVIDED)


def test_the_reader_is_nearly_perfect_on_the_clinics_own_conversations() -> None:
    styles = ("brief", "rambling", "precise", "hesitant", "chatty", "worried about details")
    both = said = read = 0
    for index in range(500):
        topic, style = TOPICS[index % len(TOPICS)], styles[index % len(styles)]
        written = write(topic, case=f"{index:08x}", exchanges=4 + index % 7, style=style)
        assert written.gold is not None
        gold, found = pairs(written.gold), pairs(read_record(written.text))
        both, said, read = both + (gold & found).total(), said + gold.total(), read + found.total()
    assert 2 * both / (said + read) > 0.97


def test_a_real_looking_transcript_is_read() -> None:
    talk = """Doctor: Hello, Mr. John Hill. Remind me, please, how old are you?
 Patient: I'm sixty seven years old, sir.
Doctor: Do you have any chronic medical conditions?
Patient: Oh, yeah. I have anemia, high cholesterol, and, um, hypothyroidism. Doctor: Any chest pain? Patient: No.
Doctor: Are you taking any medications?
Patient: I take Lipitor. My wife takes Advil.
Doctor: What brings you in?
Patient: I have had this cough for about three weeks.  No fever.
Doctor: It looks like bronchitis. I'll start you on doxycycline 100 mg twice a day for ten days."""
    record = read_record(talk)
    assert record["patient_details"] == {"name": "John Hill", "age": "67", "sex": "male", "occupation": NOT_PROVIDED}
    assert record["medical_history"] == {
        "conditions": ["anemia", "high cholesterol", "hypothyroidism"],
        "medications": ["Lipitor"],
        "allergies": [],
        "family_history": [],
    }
    assert record["current_diagnosis"] == {"condition": "bronchitis", "symptoms": ["cough"], "duration": "about three weeks"}
    assert record["prescription"] == [
        {"drug": "doxycycline", "dose": "100 mg", "frequency": "twice a day", "duration": "ten days"}
    ]


@pytest.mark.parametrize(
    ("question", "reply", "field", "expected"),
    [
        ("Any allergies?", "No, none.", "allergies", ["none"]),
        ("Any allergies?", "To be exact, none that I know of.", "allergies", ["none"]),
        ("Any allergies?", "Yes, penicillin and latex.", "allergies", ["penicillin", "latex"]),
        ("Any allergies?", "No, none. I'm on aspirin, by the way.", "allergies", ["none"]),
        ("Any allergies?", "No, none. I'm on aspirin, by the way.", "medications", ["aspirin"]),
        ("Any allergies?", "I'm allergic to mango.", "allergies", ["mango"]),
        ("Do you smoke?", "No.", "allergies", []),
        ("Are you taking any medications?", "No, I don't take anything.", "medications", ["none"]),
        ("Are you taking metformin?", "Yes.", "medications", ["metformin"]),
        ("Do you have any other medical conditions?", "No, I'm otherwise healthy.", "conditions", ["none"]),
        ("Any history of diabetes?", "No.", "conditions", []),
        ("How are you?", "I don't have asthma.", "conditions", []),
        ("Does anything run in your family?", "My mother had breast cancer.", "family_history", ["breast cancer"]),
        ("Does anything run in your family?", "My mother had breast cancer.", "conditions", []),
        ("Does anything run in your family?", "Diabetes. And I have asthma.", "family_history", ["Diabetes"]),
        ("Does anything run in your family?", "Diabetes. And I have asthma.", "conditions", ["asthma"]),
        ("Does anything run in your family?", "Nothing runs in my family.", "family_history", ["none"]),
        ("Is anyone sick?", "My neighbor has asthma, but I don't.", "family_history", []),
        ("Is anyone sick?", "My neighbor has asthma, but I don't.", "conditions", []),
    ],
)
def test_history_answers_are_understood_with_denials_relatives_and_outsiders(
    question: str, reply: str, field: str, expected: list[str]
) -> None:
    assert read_record(f"Doctor: {question}\nPatient: {reply}")["medical_history"][field] == expected


@pytest.mark.parametrize(
    ("reply", "age"),
    [
        ("I'm 40, no, sorry, 42.", "42"),
        ("I am fifty-six years old.", "56"),
        ("I'm seventy seven years young.", "77"),
        ("My father is 80 years old.", NOT_PROVIDED),
        ("I'm 12 weeks pregnant.", NOT_PROVIDED),
        ("I have a five year old son.", NOT_PROVIDED),
        ("It started eight years ago.", NOT_PROVIDED),
    ],
)
def test_ages_are_the_patients_own_and_corrected(reply: str, age: str) -> None:
    assert read_record(f"Doctor: Tell me about yourself.\nPatient: {reply}")["patient_details"]["age"] == age


def test_a_medicine_only_weighed_up_is_not_prescribed() -> None:
    talk = (
        "Doctor: I thought about ibuprofen, but I don't want to use it. Take naproxen 250 mg. Are you on warfarin?\nPatient: No."
    )
    assert [item["drug"] for item in read_record(talk)["prescription"]] == ["naproxen"]


def test_guests_speak_for_the_patient() -> None:
    talk = "Doctor: How is she?\nGuest_family: She is thirteen years old and she has a fever. She has had it for two days."
    record = read_record(talk)
    assert (record["patient_details"]["age"], record["patient_details"]["sex"]) == ("13", "female")
    assert record["current_diagnosis"] == {"condition": NOT_PROVIDED, "symptoms": ["fever"], "duration": "two days"}


@given(st.integers(0, 99))
def test_number_words_go_both_ways(number: int) -> None:
    assert value_of(spell(number)) == number == value_of(spell(number).replace("-", " "))


@given(st.text(max_size=400))
@settings(deadline=None)
def test_any_text_is_read_without_an_error(text: str) -> None:
    record = read_record(text)
    assert record.keys() == PATIENT_RECORD.empty().keys()
    json.dumps(PATIENT_RECORD.canonical(record))


@pytest.mark.parametrize("piece", ["um, ", "no ", "a ", "for a ", "Doctor: ", "two ", "I have ", "' "])
def test_a_long_hostile_text_takes_no_longer_than_its_length(piece: str) -> None:
    start = time.monotonic()
    read_record("Doctor: Any allergies?\nPatient: " + piece * (60_000 // len(piece)))
    assert time.monotonic() - start < 20


def dialogues() -> list[dict[str, str]]:
    folder = os.environ.get("MEDKD_MTS_DIALOG")
    if not folder:
        pytest.skip("MEDKD_MTS_DIALOG names no folder with the MTS-Dialog CSV files")
    return [row for path in sorted(Path(folder).glob("*.csv")) for row in csv.DictReader(path.open(encoding="utf-8"))]


def test_values_read_from_real_dialogues_are_their_own_words() -> None:
    rows = dialogues()
    given_facts = 0
    for row in rows:
        spoken = row["dialogue"].replace("’", "'")
        for path, value in PATIENT_RECORD.values(read_record(row["dialogue"])):
            if value not in (NOT_PROVIDED, "none") and path not in ("patient_details.sex", "patient_details.age"):
                assert " ".join(value.split()) in " ".join(spoken.split()), (row["ID"], path)
                given_facts += 1
    assert given_facts > len(rows) / 2
