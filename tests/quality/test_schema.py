"""From text to a valid record: strict JSON, shape, domain."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.quality.schema import InvalidConversation, InvalidRecord, _has_shape, check_conversation, parse_record
from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from tests.quality.examples import RECORD, changed, records


def problem_of(text: str) -> tuple[str, str]:
    with pytest.raises(InvalidRecord) as caught:
        parse_record(text, PATIENT_RECORD)
    return caught.value.kind, caught.value.problem


@given(records())
def test_a_valid_record_survives_its_canonical_text(record: dict[str, Any]) -> None:
    assert parse_record(PATIENT_RECORD.canonical(record), PATIENT_RECORD) == record


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(json.dumps))
def test_any_other_text_is_an_invalid_record_and_nothing_worse(text: str) -> None:
    with pytest.raises(InvalidRecord):
        parse_record(text, PATIENT_RECORD)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, member in inner for place in places(member, (*path, key)))]


ODD = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just(["x"]) | st.just([1])


@given(records(), st.data())
def test_a_shape_is_right_exactly_where_the_json_schema_says_so(record: dict[str, Any], data: st.DataObject) -> None:
    """A record with one place replaced, removed or added to is judged by the quick check as by the validator."""
    whole: Any = [json.loads(json.dumps(record))]
    *parents, last = data.draw(st.sampled_from(places(whole)[1:]))
    holder = whole
    for key in parents:
        holder = holder[key]
    change = data.draw(st.sampled_from(["none", "replace", "remove", "add"]))
    if change == "replace":
        holder[last] = data.draw(ODD)
    elif change == "remove" and parents:
        del holder[last]
    elif change == "add" and isinstance(holder, dict):
        holder["surplus"] = "x"
    valid = jsonschema.Draft202012Validator(PATIENT_RECORD.json_schema()).is_valid(whole[0])
    assert _has_shape(PATIENT_RECORD.fields, whole[0]) == valid


def test_one_code_fence_is_taken_off_and_two_are_not() -> None:
    text = json.dumps(RECORD, indent=1)
    assert parse_record(f"```json\n{text}\n```\n", PATIENT_RECORD) == RECORD
    assert problem_of(f"```\n```json\n{text}\n```\n```")[0] == "not_json"
    assert problem_of(f"Here it is: {text}")[0] == "not_json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": "1", "a": "2"}', "twice"),
        ('{"a": "1"', "line 1"),
        ("[" * 100_000, "nested"),
    ],
)
def test_json_is_read_strictly(text: str, said: str) -> None:
    kind, problem = problem_of(text)
    assert kind == "not_json"
    assert said in problem


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("patient_details.age", 54, "patient_details.age: expected string, got number"),
        ("patient_details.age", 10**30, "patient_details.age: expected string, got number"),
        ("patient_details", [], "patient_details: expected object, got array"),
        ("medical_history.allergies", "none", "medical_history.allergies: expected array, got string"),
        ("prescription", [{"drug": "x"}], "prescription[0]: missing dose, frequency, duration"),
        ("comment", "hello", 'the answer: unknown "comment"'),
    ],
)
def test_a_wrong_shape_is_named_by_its_path(path: str, value: Any, said: str) -> None:
    assert problem_of(json.dumps(changed(path, value))) == ("wrong_shape", said)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("patient_details.age", "121", "patient_details.age: got"),
        ("patient_details.age", "54 years", "digits from 0 to 120"),
        ("patient_details.age", "٥٤", "digits from 0 to 120"),
        ("patient_details.age", "none", "digits from 0 to 120"),
        ("patient_details.sex", "woman", "male or female"),
        ("patient_details.name", "  ", "empty"),
        ("patient_details.name", "a\u0000b", "control characters"),
        ("patient_details.name", "\ud800", "control characters"),
        ("medical_history.conditions", ["NOT PROVIDED"], "write []"),
        ("medical_history.conditions", [""], "empty"),
        ("medical_history.conditions", ["none", "asthma"], "stands beside"),
        ("medical_history.conditions", ["asthma", "Asthma "], "twice"),
        ("prescription", [{**RECORD["prescription"][0], "dose": "some"}], "amount"),
        ("prescription", [dict.fromkeys(("drug", "dose", "frequency", "duration"), NOT_PROVIDED)], "says nothing"),
        ("prescription", RECORD["prescription"] * 2, "twice"),
    ],
)
def test_a_value_outside_its_domain_is_named_by_its_path(path: str, value: Any, said: str) -> None:
    kind, problem = problem_of(json.dumps(changed(path, value)))
    assert kind == "bad_value"
    assert path in problem
    assert said in problem


def test_outer_space_and_the_case_of_fixed_words_are_put_right() -> None:
    record = changed("patient_details.sex", " Female ")
    record["patient_details"]["name"] = " Ada Clarke\n"
    record["patient_details"]["occupation"] = "not provided"
    record["medical_history"]["allergies"] = ["None"]
    parsed = parse_record(json.dumps(record), PATIENT_RECORD)
    assert parsed["patient_details"] == {"name": "Ada Clarke", "age": "54", "sex": "female", "occupation": NOT_PROVIDED}
    assert parsed["medical_history"]["allergies"] == ["none"]


def test_a_problem_stays_short_and_out_of_the_exception_text() -> None:
    record = changed("patient_details.age", "secret " * 1000)
    with pytest.raises(InvalidRecord) as caught:
        parse_record(json.dumps(record), PATIENT_RECORD)
    assert len(caught.value.problem) < 300
    assert "secret" not in str(caught.value)


GOOD = "Doctor: Hello.\nPatient: Hi.\nDoctor: How are you?\nPatient: Fine."


def test_a_conversation_of_doctor_and_patient_passes() -> None:
    check_conversation(GOOD, 2)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" \n", "empty"),
        (GOOD.replace("Doctor", "**Doctor**"), "markdown"),
        ("# Visit\n" + GOOD, "markdown"),
        ("Sure! Here you are.\n" + GOOD, "speakers"),
        ("Here is the conversation:\n" + GOOD, "speakers"),
        (GOOD + "\nNurse: Next, please.", "speakers"),
        ("Doctor: Hello.\nDoctor: Anyone?", "too_short"),
        ("Doctor: Hello.\nPatient: Hi.", "too_short"),
    ],
)
def test_a_conversation_that_was_not_asked_for_is_told_why(text: str, kind: str) -> None:
    with pytest.raises(InvalidConversation) as caught:
        check_conversation(text, 2)
    assert caught.value.kind == kind
