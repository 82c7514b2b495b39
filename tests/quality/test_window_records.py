"""Which part of a record a window supports, and one record of the windows' records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.quality.schema import parse_record
from medkd.quality.scores import compare, pairs
from medkd.quality.spoken import normal_form
from medkd.quality.window_records import merge_records, window_records, with_turns_of_the_whole
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Field, RecordSchema
from medkd.rules import Rule
from medkd.samples import Window, turn_lines
from medkd.student.windows import cut
from tests.student.records_strategy import NESTED, records_of

SCHEMAS = pytest.mark.parametrize("schema", [PATIENT_RECORD, NESTED], ids=lambda schema: schema.name)
Record = dict[str, Any]

TALK = [
    "Doctor: Good morning, Ms. Clarke. How old are you?",
    "Patient: I am 54.",
    "Doctor: What brings you here?",
    "Patient: I have been wheezing for two weeks, and I cough.",
    "Doctor: Any allergies?",
    "Patient: Penicillin, and I take metformin for my diabetes.",
    "Doctor: Does anyone in your family have asthma?",
    "Patient: My mother had asthma.",
    "Doctor: You have asthma yourself. I will prescribe albuterol, 90 mcg, twice a day.",
    "Patient: And the cough?",
    "Doctor: Take codeine, 15 mg, at night.",
    "Patient: Thank you.",
]


def record_of(**changes: Any) -> Record:
    record = PATIENT_RECORD.empty()
    for path, value in changes.items():
        group, _, name = path.partition("__")
        if name:
            record[group][name] = value
        else:
            record[group] = value
    return record


def item(drug: str, dose: str = NOT_PROVIDED, frequency: str = NOT_PROVIDED, duration: str = NOT_PROVIDED) -> dict[str, str]:
    return {"drug": drug, "dose": dose, "frequency": frequency, "duration": duration}


WHOLE = record_of(
    patient_details__name="Ms. Clarke",
    patient_details__age="54",
    patient_details__sex="female",
    medical_history__conditions=["diabetes"],
    medical_history__medications=["metformin"],
    medical_history__allergies=["penicillin"],
    medical_history__family_history=["asthma"],
    current_diagnosis__condition="asthma",
    current_diagnosis__symptoms=["wheezing", "cough"],
    current_diagnosis__duration="two weeks",
    prescription=[item("albuterol", "90 mcg", "twice a day"), item("codeine", "15 mg", "at night")],
)


def windows_of(*spans: tuple[int, int]) -> list[Window]:
    return [Window(text="\n".join(TALK[first:last]), turns=tuple(range(first, last))) for first, last in spans]


def test_each_window_keeps_what_it_says_itself_and_nothing_else() -> None:
    first, second, last = window_records(WHOLE, "\n".join(TALK), windows_of((0, 4), (4, 8), (8, 12)), PATIENT_RECORD)
    assert first == record_of(
        patient_details=WHOLE["patient_details"] | {"occupation": NOT_PROVIDED},
        current_diagnosis={"condition": NOT_PROVIDED, "symptoms": ["wheezing", "cough"], "duration": "two weeks"},
    )
    assert second == record_of(medical_history=WHOLE["medical_history"])
    assert last == record_of(
        current_diagnosis={"condition": "asthma", "symptoms": ["cough"], "duration": NOT_PROVIDED},
        prescription=WHOLE["prescription"],
    )
    assert merge_records([first, second, last], PATIENT_RECORD) == WHOLE


def test_a_window_does_not_keep_what_only_the_rest_of_the_conversation_gives_its_meaning() -> None:
    # Without the question before it, this turn would be the patient's own asthma.
    talk = ["Doctor: What about your mother?", "Patient: Asthma.", "Doctor: And you?", "Patient: Gout."]
    record = record_of(medical_history__conditions=["gout"], medical_history__family_history=["asthma"])
    parts = window_records(
        record,
        "\n".join(talk),
        [Window(text="\n".join(talk[1:3]), turns=(1, 2)), Window(text="\n".join(talk[2:]), turns=(2, 3))],
        PATIENT_RECORD,
    )
    assert [part["medical_history"]["conditions"] for part in parts] == [[], ["gout"]]


def test_a_dose_goes_where_its_drug_does() -> None:
    talk = ["Doctor: Take codeine.", "Patient: How much?", "Doctor: 15 mg, at night.", "Patient: Good."]
    record = record_of(prescription=[item("codeine", "15 mg", "at night")])
    halves = [
        Window(text="\n".join(talk[first:last]), turns=tuple(range(first, last))) for first, last in ((0, 2), (2, 4), (0, 3))
    ]
    alone, without, both = window_records(record, "\n".join(talk), halves, PATIENT_RECORD)
    assert alone["prescription"] == [item("codeine")]
    assert without["prescription"] == []
    assert both == record


@settings(max_examples=30)
@given(overlap=st.integers(2, 5), room=st.integers(200, 700))
def test_the_parts_of_any_windows_make_the_record_again(overlap: int, room: int) -> None:
    windows = cut("\n".join(TALK), len, room, overlap)
    assert len(windows) > 1 or room >= len("\n".join(TALK))
    parts = window_records(WHOLE, "\n".join(TALK), windows, PATIENT_RECORD)
    assert pairs(merge_records(parts, PATIENT_RECORD), PATIENT_RECORD) == pairs(WHOLE, PATIENT_RECORD)
    for part in parts:
        parse_record(PATIENT_RECORD.canonical(part), PATIENT_RECORD)


def test_what_no_turn_supports_is_in_no_part() -> None:
    record = {**WHOLE, "medical_history": WHOLE["medical_history"] | {"conditions": ["diabetes", "gout"]}}
    parts = window_records(record, "\n".join(TALK), windows_of((0, 6), (6, 12)), PATIENT_RECORD)
    assert merge_records(parts, PATIENT_RECORD)["medical_history"]["conditions"] == ["diabetes"]


@SCHEMAS
@given(data=st.data())
def test_one_windows_record_is_the_record(schema: RecordSchema, data: st.DataObject) -> None:
    record = data.draw(records_of(schema))
    assert merge_records([record], schema) == record


@SCHEMAS
@given(data=st.data())
def test_silent_windows_change_nothing_and_neither_does_one_that_repeats(schema: RecordSchema, data: st.DataObject) -> None:
    record, empty = data.draw(records_of(schema)), schema.empty()
    merged = merge_records([record, empty], schema)
    assert merge_records([empty, record], schema) == merge_records([empty, record, empty], schema) == merged
    assert merge_records([merged, merged], schema) == merged
    assert merge_records([empty, empty], schema) == empty


@SCHEMAS
@given(data=st.data())
def test_a_merged_record_says_what_windows_say_each_thing_once(schema: RecordSchema, data: st.DataObject) -> None:
    records = data.draw(st.lists(records_of(schema), min_size=2, max_size=4))
    merged = merge_records(records, schema)
    assert merged == merge_records(json.loads(json.dumps(records)), schema)
    said = set().union(*(pairs(record, schema) for record in records))
    assert set(pairs(merged, schema)) <= said
    for field in schema.fields:
        holders = [(field, merged, records)]
        if field.kind == "group":
            holders = [(one, merged[field.name], [record[field.name] for record in records]) for one in field.fields]
        for one, holder, given_holders in holders:
            _check(one, holder[one.name], [given_holder[one.name] for given_holder in given_holders])


def _check(field: Field, merged: Any, given_values: list[Any]) -> None:
    if field.kind == "text":
        assert (merged == NOT_PROVIDED) == all(value == NOT_PROVIDED for value in given_values)
    elif field.kind == "list":
        forms = [normal_form(entry) for entry in merged]
        said = {normal_form(entry) for value in given_values for entry in value}
        assert len(forms) == len(set(forms)) and set(forms) in (said, said - {"none"})
        assert merged == sorted(merged, key=_first_place(given_values))
    elif field.kind == "items":
        assert len(merged) <= sum(map(len, given_values))


def _first_place(given_values: list[list[str]]) -> Any:
    order = list(dict.fromkeys(normal_form(entry) for value in given_values for entry in value))
    return lambda entry: order.index(normal_form(entry))


def test_of_several_texts_the_one_of_most_windows_stays_and_else_the_later() -> None:
    def age(*values: str) -> str:
        records = [record_of(patient_details__age=value) for value in values]
        return str(merge_records(records, PATIENT_RECORD)["patient_details"]["age"])

    assert age("54", NOT_PROVIDED, "45") == "45"
    assert age("54", "45", "54") == "54"
    assert age("54", "54", "45", NOT_PROVIDED) == "54"
    assert age("fifty-four", "45", "54") == "54"


def test_a_denial_gives_way_to_what_another_window_says() -> None:
    denied, named = (record_of(medical_history__allergies=value) for value in (["none"], ["penicillin"]))
    for records in ([denied, named], [named, denied]):
        assert merge_records(records, PATIENT_RECORD)["medical_history"]["allergies"] == ["penicillin"]
    assert merge_records([denied, PATIENT_RECORD.empty()], PATIENT_RECORD) == denied


def test_prescriptions_of_one_drug_are_one_and_what_a_window_tells_apart_stays_apart() -> None:
    def merged(*windows: list[dict[str, str]]) -> Any:
        return merge_records([record_of(prescription=window) for window in windows], PATIENT_RECORD)["prescription"]

    codeine = item("codeine", "15 mg", "at night")
    assert merged([item("codeine", "15 mg")], [item("codeine", frequency="at night")]) == [codeine]
    assert merged([item("codeine", "fifteen milligrams")], [codeine]) == [codeine]
    assert merged([item("codeine", "10 mg")], [codeine]) == [codeine]
    both = [item("insulin", "10 units", "in the morning"), item("insulin", "4 units", "at night")]
    assert merged(both, both) == both
    assert merged(both, both[::-1]) == both
    assert merged(both[:1], both) == both
    assert merged([codeine], [item("albuterol")], []) == [codeine, item("albuterol")]
    assert merged([codeine], [item(NOT_PROVIDED, "15 mg")]) == [codeine]
    assert merged([item("codeine")], [item("albuterol", "15 mg")]) == [item("codeine"), item("albuterol", "15 mg")]


ORDERS = RecordSchema(
    name="orders",
    version=1,
    fields=(
        Field(
            name="orders",
            kind="items",
            description="",
            fields=(
                Field(name="kind", kind="text", description="", rule=Rule(support="nothing")),
                Field(name="drug", kind="text", description="", rule=Rule(support="drug")),
                Field(name="dose", kind="text", description="", rule=Rule(compare="dose", support="literal", tied_to="drug")),
                Field(name="turns", kind="list", description="", rule=Rule(compare="exact", support="turn")),
            ),
        ),
        Field(name="summary", kind="text", description="", rule=Rule(support="nothing")),
    ),
)


def test_numbers_of_turns_are_the_windows_own_and_the_conversations_again_when_merged() -> None:
    known = {
        "orders": [
            {"kind": "new", "drug": "albuterol", "dose": "90 mcg", "turns": ["9"]},
            {"kind": "new", "drug": "codeine", "dose": "15 mg", "turns": ["10", "11"]},
        ],
        "summary": "asthma",
    }
    windows = windows_of((0, 6), (4, 10), (8, 12))
    first, second, last = window_records(known, "\n".join(TALK), windows, ORDERS)
    assert first == {"orders": [], "summary": NOT_PROVIDED}
    assert second["orders"] == [{"kind": "new", "drug": "albuterol", "dose": "90 mcg", "turns": ["5"]}]
    assert [order["turns"] for order in last["orders"]] == [["1"], ["2", "3"]]
    wholes = [with_turns_of_the_whole(part, window, ORDERS) for part, window in zip((first, second, last), windows, strict=True)]
    assert merge_records(wholes, ORDERS) == {**known, "summary": NOT_PROVIDED}
    broken = {"orders": [{"kind": "new", "drug": "codeine", "dose": NOT_PROVIDED, "turns": ["7", "x", "2"]}], "summary": "x"}
    assert with_turns_of_the_whole(broken, windows[0], ORDERS)["orders"][0]["turns"] == ["2"]
    in_grams = {"orders": [{"kind": "new", "drug": "codeine", "dose": "0.015 g", "turns": ["11"]}], "summary": NOT_PROVIDED}
    assert [order["dose"] for order in merge_records([wholes[2], in_grams], ORDERS)["orders"]] == ["90 mcg", "0.015 g"]


def test_turns_are_counted_as_evidence_counts_them() -> None:
    found = cut("\n".join(TALK), len, 300, 2)
    assert [window.text.split("\n") for window in found] == [[TALK[turn] for turn in window.turns] for window in found]
    assert len(turn_lines("\n".join(TALK))) == len(TALK)
    assert compare(WHOLE, WHOLE, PATIENT_RECORD).exact
