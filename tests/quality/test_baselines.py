"""The constant record and the lexicon: what they learn, and only from what they are given."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from medkd.quality.baselines import LexiconBaseline, constant_record
from medkd.quality.schema import parse_record
from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from tests.quality.examples import CONVERSATION, RECORD, changed, records

OTHER = CONVERSATION.replace("lisinopril", "losartan").replace("Fifty-four", "Sixty").replace("hypertension", "anxiety")


def lexicon() -> LexiconBaseline:
    other: dict[str, Any] = copy.deepcopy(changed("patient_details.age", "60"))
    other["current_diagnosis"]["condition"] = "anxiety"
    other["prescription"][0]["drug"] = "losartan"
    return LexiconBaseline([(CONVERSATION, RECORD), (OTHER, other)], PATIENT_RECORD)


def test_the_constant_record_holds_each_fields_most_frequent_value() -> None:
    rows = [RECORD, RECORD, changed("patient_details.age", "60"), changed("medical_history.allergies", [])]
    assert constant_record(rows, PATIENT_RECORD) == RECORD
    assert constant_record([], PATIENT_RECORD) == PATIENT_RECORD.empty()


def test_a_constant_record_does_not_depend_on_the_order_of_rows() -> None:
    rows = [changed("patient_details.age", age) for age in ("7", "70", "12")]
    assert constant_record(rows, PATIENT_RECORD) == constant_record(rows[::-1], PATIENT_RECORD)


def test_the_lexicon_finds_known_values_in_a_new_conversation() -> None:
    conversation = (
        "Doctor: You have anxiety. Take losartan, twelve point five mg once daily for 30 days.\nPatient: I'm dizzy at 60."
    )
    predicted = lexicon().predict(conversation)
    assert predicted["current_diagnosis"]["condition"] == "anxiety"
    assert predicted["patient_details"]["age"] == "60"
    assert predicted["prescription"] == [
        {"drug": "losartan", "dose": "12.5 mg", "frequency": "once daily", "duration": "thirty days"}
    ]


def test_the_lexicon_knows_nothing_that_training_did_not_have() -> None:
    predicted = lexicon().predict("Doctor: Take aspirin, 100 mg twice a day.\nPatient: I'm 33, a nurse with migraine.")
    assert predicted == PATIENT_RECORD.empty()


def test_an_items_parts_come_from_near_its_drug() -> None:
    far = "Doctor: Take losartan. " + "Well, let us see what else there is to say about it. " * 5 + "12.5 mg it was."
    assert [item["dose"] for item in lexicon().predict(far)["prescription"]] == [NOT_PROVIDED]


def test_a_value_that_misleads_more_often_than_not_is_not_predicted() -> None:
    rows = [("Patient: No headache at all.", PATIENT_RECORD.empty()) for _ in range(3)]
    record = PATIENT_RECORD.empty()
    record["current_diagnosis"]["symptoms"] = ["headache"]
    rows.append(("Patient: A headache.", record))
    assert LexiconBaseline(rows, PATIENT_RECORD).predict("Patient: headache")["current_diagnosis"]["symptoms"] == []


@given(st.lists(st.tuples(st.text(), records()), max_size=4), st.text())
def test_predictions_are_always_valid_records(rows: list[tuple[str, dict[str, Any]]], conversation: str) -> None:
    spoken = " ".join([conversation, *(value for _, record in rows for _, value in PATIENT_RECORD.values(record))])
    for predicted in (
        LexiconBaseline([(f"{text} {spoken}", record) for text, record in rows], PATIENT_RECORD).predict(spoken),
        constant_record([record for _, record in rows], PATIENT_RECORD),
    ):
        assert parse_record(json.dumps(predicted), PATIENT_RECORD) == predicted
