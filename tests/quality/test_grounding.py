"""Grounding: what a conversation supports, where, and which planted errors are found."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.quality.grounding import ground
from medkd.records import PATIENT_RECORD
from medkd.samples import turns
from tests.benchmarks.planted_errors import measure
from tests.quality.examples import CONVERSATION, RECORD, changed, records
from tests.quality.hand_checked import false_alarms
from tests.schema_strategy import ORDERS

MTS_DIALOG = os.environ.get("MEDKD_MTS_DIALOG")


def unsupported(record: dict[str, Any], conversation: str = CONVERSATION) -> tuple[tuple[str, str], ...]:
    return ground(record, conversation, PATIENT_RECORD).unsupported


def only(path: str, value: Any) -> dict[str, Any]:
    """A record that claims nothing but this."""
    record = PATIENT_RECORD.empty()
    group, leaf = path.split(".")
    record[group][leaf] = value
    return record


def test_a_true_record_is_supported_and_points_to_its_turns() -> None:
    grounding = ground(RECORD, CONVERSATION, PATIENT_RECORD)
    assert grounding.unsupported == ()
    assert set(grounding.evidence) == set(PATIENT_RECORD.leaves())
    assert grounding.evidence["patient_details.age"] == (1,)
    assert grounding.evidence["medical_history.allergies"] == (3,)
    assert grounding.evidence["prescription[].dose"] == (10,)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("patient_details.name", "Ms. Clark"),
        ("patient_details.age", "55"),
        ("patient_details.age", "45"),
        ("patient_details.age", "30"),  # said, but of days
        ("patient_details.sex", "male"),
        ("patient_details.occupation", "nurse"),
        ("medical_history.conditions", ["type 1 diabetes"]),
        ("medical_history.conditions", ["asthma"]),
        ("medical_history.medications", ["metoprolol"]),
        ("medical_history.allergies", ["penicillin"]),
        ("current_diagnosis.condition", "hypotension"),
        ("current_diagnosis.symptoms", ["chest pain"]),
        ("current_diagnosis.duration", "two weeks"),
        ("prescription[].drug", "losartan"),
        ("prescription[].dose", "12 mg"),
        ("prescription[].dose", "125 mg"),
        ("prescription[].dose", "12.5 mcg"),
        ("prescription[].frequency", "twice daily"),
        ("prescription[].duration", "three days"),
    ],
)
def test_a_planted_error_is_found_and_nothing_else_is(path: str, value: Any) -> None:
    planted = value[0] if isinstance(value, list) else value
    assert unsupported(changed(path, value)) == ((path, planted),)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("patient_details.name", "Clarke"),
        ("medical_history.conditions", ["Type 2 Diabetes"]),
        ("current_diagnosis.symptoms", ["Dizziness"]),
        ("current_diagnosis.duration", "3 weeks"),
        ("prescription[].dose", "12.5 milligrams"),
        ("prescription[].frequency", "once a day"),
        ("prescription[].duration", "30 days"),
    ],
)
def test_another_spelling_of_the_same_fact_is_supported(path: str, value: Any) -> None:
    assert unsupported(changed(path, value)) == ()


def test_a_denial_must_be_about_its_field() -> None:
    said = "Doctor: Any allergies?\nPatient: {}\nDoctor: Do you smoke?\nPatient: No."
    record = only("medical_history.allergies", ["none"])
    assert unsupported(record, said.format("Nope.")) == ()
    assert unsupported(record, said.format("Yes, pollen.")) == (("medical_history.allergies", "none"),)


@pytest.mark.parametrize(
    ("conversation", "sex"),
    [
        ("Doctor: Good morning, Mr. Hall.", "male"),
        ("Patient: I am a 30 year old right-handed woman.", "female"),
        ("Doctor: Where do you work, miss?", "female"),
        ("Doctor: Is there a chance that you are pregnant?", "female"),
        ("Doctor: What brings you in?\nGuest_family: My son fell, he hurt his arm.", "male"),
    ],
)
def test_the_sex_is_read_from_cues_about_the_patient(conversation: str, sex: str) -> None:
    other = {"male": "female", "female": "male"}[sex]
    assert unsupported(only("patient_details.sex", sex), conversation) == ()
    assert unsupported(only("patient_details.sex", other), conversation) == (("patient_details.sex", other),)


@pytest.mark.parametrize(
    "conversation",
    ["Patient: My mother had it. She was pregnant then.", "Doctor: Did she take insulin?", "Patient: I miss my old job."],
)
def test_what_is_said_about_others_gives_the_patient_no_sex(conversation: str) -> None:
    assert unsupported(only("patient_details.sex", "female"), conversation)


@pytest.mark.parametrize(
    ("said", "supported"),
    [
        ("I'm 54.", True),
        ("A 54-year-old", True),
        ("I turned fifty four", True),
        ("54 mg of it", False),
        ("for 54 days", False),
        ("my pressure was 120 over 54", False),
        ("that was 54 years ago", False),
    ],
)
def test_an_age_is_a_number_that_counts_nothing_else(said: str, supported: bool) -> None:
    found = unsupported(only("patient_details.age", "54"), f"Patient: {said}")
    assert (found == ()) is supported


def test_a_value_spread_over_question_and_answer_is_supported_by_both() -> None:
    conversation = (
        "Doctor: How long has the chest hurt?\nPatient: Two weeks.\nDoctor: The pain, in the chest?\nPatient: The left one."
    )
    record = only("current_diagnosis.symptoms", ["left chest pain"])
    assert ground(record, conversation, PATIENT_RECORD).evidence == {"current_diagnosis.symptoms": (2,)}
    record = only("current_diagnosis.duration", "chest hurt for two weeks")
    assert ground(record, conversation, PATIENT_RECORD).evidence == {"current_diagnosis.duration": (0, 1)}


@given(records(), st.text())
def test_any_record_and_any_text_give_an_answer_within_the_turns(record: dict[str, Any], conversation: str) -> None:
    grounding = ground(record, conversation, PATIENT_RECORD)
    places = {place for found in grounding.evidence.values() for place in found}
    assert places <= set(range(len(turns(conversation))))
    assert set(grounding.unsupported) <= set(PATIENT_RECORD.values(record))


def test_a_record_that_claims_nothing_needs_no_support() -> None:
    assert ground(PATIENT_RECORD.empty(), CONVERSATION, PATIENT_RECORD).evidence == {}
    assert unsupported(PATIENT_RECORD.empty()) == ()


def said_of(said: str, path: str, value: str) -> bool:
    """Whether the talk supports the value there."""
    return unsupported(only(path, [value]), said) == ()


@pytest.mark.parametrize(
    "said",
    [
        "Patient: I have no history of diabetes.",
        "Patient: I've never had diabetes, I have asthma.",
        "Doctor: He denies diabetes and stroke.",
        "Doctor: Any diabetes?\nPatient: No.",
        "Doctor: Do you have asthma, gout or diabetes?\nPatient: Um, no, nothing like that.",
        "Doctor: Diabetes? High cholesterol?\nPatient: Neither.",
        "Patient: I don't have any diabetes.",
        "Patient: No fever, chills, or diabetes.",
        "Doctor: Diabetes was ruled out.",
        "Patient: My mother had diabetes.",
        "Patient: My father was diagnosed with gout. He also had diabetes.",
        "Doctor: Does anything run in your family?\nPatient: Yes, diabetes.",
        "Patient: Diabetes runs in my family.",
        "Patient: My neighbor has diabetes.",
    ],
)
def test_what_is_denied_or_said_of_others_is_not_the_patients(said: str) -> None:
    assert not said_of(said, "medical_history.conditions", "diabetes")


@pytest.mark.parametrize(
    "said",
    [
        "Patient: I have diabetes.",
        "Doctor: Any diabetes?\nPatient: Yes.",
        "Doctor: Any diabetes?\nPatient: Not sure, they said so once.",
        "Patient: No, just diabetes.",
        "Patient: No asthma, but I do have diabetes.",
        "Patient: I have never had asthma and I have diabetes.",
        "Patient: There is no change in my diabetes.",
        "Patient: My wife says that I have to watch my diabetes.",
        "Patient: My mother had gout, and I have diabetes.",
        "Doctor: How is your mother?\nPatient: Fine, thanks. I have diabetes.",
        "Doctor: Any allergies?\nPatient: No.\nDoctor: And diabetes, for how long?\nPatient: Five years.",
        "Guest_family: My son has diabetes.",
    ],
)
def test_what_is_affirmed_of_the_patient_is(said: str) -> None:
    assert said_of(said, "medical_history.conditions", "diabetes")


@pytest.mark.parametrize(
    ("said", "supported"),
    [
        ("Patient: My mother had diabetes.", True),
        ("Doctor: Anything in the family?\nPatient: Diabetes.", True),
        ("Patient: I have diabetes.", False),
        ("Patient: My mother never had diabetes.", False),
        ("Patient: My neighbor has diabetes.", False),
    ],
)
def test_family_history_is_said_of_the_family(said: str, supported: bool) -> None:
    assert said_of(said, "medical_history.family_history", "diabetes") is supported


def prescribed(drug: str, dose: str) -> dict[str, Any]:
    record = PATIENT_RECORD.empty()
    record["prescription"] = [{"drug": drug, "dose": dose, "frequency": "NOT PROVIDED", "duration": "NOT PROVIDED"}]
    return record


@pytest.mark.parametrize(
    ("drug", "dose", "supported"),
    [
        ("lisinopril", "20 mg", True),
        ("lisinopril", "500 mg", False),
        ("metformin", "500 mg", True),
        ("metformin", "20 mg", False),
        ("Zestril", "20 mg", True),
        ("warfarin", "5 mg", True),
        ("warfarin", "20 mg", False),
    ],
)
def test_a_dose_is_said_of_its_own_drug(drug: str, dose: str, supported: bool) -> None:
    said = "Doctor: Take lisinopril, twenty milligrams a day, and metformin 500 mg. Then there is 5 mg of warfarin."
    assert (unsupported(prescribed(drug, dose), said) == ()) is supported


def test_the_same_dose_may_be_said_of_two_drugs_and_in_a_later_turn() -> None:
    said = "Doctor: Take omeprazole 20 mg and famotidine 20 mg.\nPatient: And the Lasix?\nDoctor: 40 mg."
    assert unsupported(prescribed("famotidine", "20 mg"), said) == ()
    assert unsupported(prescribed("furosemide", "40 mg"), said) == ()


@pytest.mark.parametrize(
    ("drug", "dose", "supported"),
    [
        ("amoxicillin-clavulanate", "875 mg", True),
        ("Augmentin", "875 mg", True),
        ("amoxicillin-clavulanate", "500 mg", False),
        ("amoxicillin", "500 mg", True),
        ("amoxicillin", "875 mg", False),
    ],
)
def test_the_parts_of_a_combination_are_no_other_drugs(drug: str, dose: str, supported: bool) -> None:
    said = "Doctor: Last time it was amoxicillin 500 mg. Take amoxicillin-clavulanate 875 mg twice a day."
    assert (unsupported(prescribed(drug, dose), said) == ()) is supported


ORDER = {"type": "medication", "description": "lisinopril 20 mg twice daily", "reason": "hypertension"}
ORDERED = "Doctor: It is hypertension.\nPatient: Oh.\nDoctor: Take lisinopril.\nPatient: And?\nDoctor: Twice daily. Iron, 20 mg."


@pytest.mark.parametrize(
    ("tied_to", "order", "supported"),
    [
        ("description", {}, {"3", "5"}),
        ("", {}, {"1", "3", "5"}),
        ("description", {"description": "20 mg"}, {"5"}),
        ("description", {"description": "lisinopril 20 mg"}, {"3"}),
        ("description", {"description": "NOT PROVIDED"}, {"1", "2", "3", "4", "5"}),
    ],
    ids=["tied to a member", "tied to none", "a number alone", "a number is not enough", "nothing is said"],
)
def test_a_turn_that_an_order_names_says_something_of_it(tied_to: str, order: dict[str, str], supported: set[str]) -> None:
    (orders,) = ORDERS.fields
    *others, numbers = orders.fields
    tied = replace(numbers, rule=replace(numbers.rule, tied_to=tied_to))
    schema = replace(ORDERS, name="tied", version=len(tied_to), fields=(replace(orders, fields=(*others, tied)),))
    record = {"orders": [{**ORDER, **order, "supporting_turns": ["1", "2", "3", "4", "5", "6", "x"]}]}
    found = ground(record, ORDERED, schema)
    named = {value for path, value in found.unsupported if path == "orders[].supporting_turns"}
    assert {"1", "2", "3", "4", "5", "6", "x"} - named == supported
    assert found.evidence["orders[].supporting_turns"] == tuple(sorted(int(number) - 1 for number in supported))


def test_planted_errors_are_found_and_clean_records_raise_no_alarm() -> None:
    figures = measure(240)
    assert figures["recall_all"] >= 0.95 and figures["precision"] >= 0.98
    assert all(recall >= 0.85 for recall in figures["recall"].values())


@pytest.mark.skipif(not MTS_DIALOG, reason="set MEDKD_MTS_DIALOG to a folder with the MTS-Dialog CSV files")
def test_hand_checked_records_of_real_dialogues_raise_few_alarms() -> None:
    figures = false_alarms(Path(str(MTS_DIALOG)))
    assert figures["records"] >= 40
    assert figures["false_alarms"] <= 0.02 * figures["values"], figures["reported"]
