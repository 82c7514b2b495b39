"""Every keyword of a record schema's document has its effect, or is refused in words; what is written comes back."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.scores import score
from medkd.quality.spoken import NUMBER_WORDS
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record, RecordSchema
from medkd.schema_documents import document_of, schema_of
from medkd.student.linear import LinearForm
from tests.schema_strategy import ORDERS, ORDERS_FILE, schemas, valid_records

WITH_RECORD = schemas().flatmap(lambda schema: st.tuples(st.just(schema), valid_records(schema)))
MEDICATION = {"type": "medication", "description": "albuterol 180 mcg", "reason": "asthma", "supporting_turns": ["9"]}


def changed(path: tuple[str, ...], value: Any) -> Any:
    """The medication orders' document with one place changed; `orders` stands for the path to an order's properties."""
    document: Any = json.loads(ORDERS_FILE.read_text())
    place = document
    for key in path[:-1]:
        place = place["properties"]["orders"]["items"]["properties"] if key == "orders" else place[key]
    place[path[-1]] = value
    return document


@given(schema=schemas())
@settings(max_examples=30, deadline=None)
def test_any_schema_comes_back_from_its_document_which_is_valid_json_schema(schema: RecordSchema) -> None:
    document = json.loads(json.dumps(document_of(schema), sort_keys=True))
    jsonschema.Draft202012Validator.check_schema(document)
    assert schema_of(document) == schema


@given(both=WITH_RECORD)
@settings(max_examples=60, deadline=None)
def test_a_record_of_any_schema_is_valid_scores_1_against_itself_and_survives_the_linear_form(
    both: tuple[RecordSchema, Record],
) -> None:
    schema, record = both
    assert parse_record(schema.canonical(record), schema) == record
    form = LinearForm(schema)
    assert form.read(form.write(record)) == record
    scores = score([(record, record, True, True)], schema)
    assert (scores.micro.f1, scores.exact_match, scores.abstention_accuracy or 1.0) == (1.0, 1.0, 1.0)


@given(both=WITH_RECORD, text=st.sampled_from(["", "12345", "zzzzzzzzzzzzzz", "x", "GOUT", "none"]), data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_changed_value_is_refused_where_a_json_schema_validator_refuses_it(
    both: tuple[RecordSchema, Record], text: str, data: st.DataObject
) -> None:
    """The document itself judges, with NOT PROVIDED and ["none"] let in and listed values taken in any case."""
    schema, record = both
    leaves = [field for field in schema.fields if field.kind in ("text", "list")]
    if not leaves:
        return
    field = data.draw(st.sampled_from(leaves))
    # Listed values are taken in any case, which JSON Schema does not know.
    known = {value.lower(): value for value in field.rule.enum}.get(text.lower(), text)
    written, judged = (value if field.kind == "text" else [value] for value in (text, known))
    silent: Any = NOT_PROVIDED if field.kind == "text" else ["none"]
    fits = jsonschema.Draft202012Validator(document_of(schema)["properties"][field.name]).is_valid(judged) or judged == silent
    try:
        parse_record(json.dumps({**record, field.name: written}), schema)
        accepted = True
    except InvalidRecord:
        accepted = False
    assert accepted == (fits and text != "")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("orders", "reason", "format"), "date", "orders.items.reason.format: keyword has no effect here; allowed: type, enum"),
        (("minProperties",), 1, "minProperties: keyword has no effect"),
        (("$defs",), {}, "$defs: keyword has no effect"),
        (("orders", "supporting_turns", "minItems"), 1, "orders.items.supporting_turns.minItems: keyword has no effect"),
        (("orders", "supporting_turns", "items", "minimum"), 1, "supporting_turns.items.minimum: keyword has no effect"),
        (("orders", "type", "type"), "integer", "orders.items.type.type: got 'integer', expected string, array of strings"),
        (("orders", "type", "type"), ["string", "null"], "orders.items.type.type: got ['string', 'null']"),
        (("orders", "type", "enum"), ["Lab", "lab"], "orders.items.type.enum: got ['Lab', 'lab']"),
        (("orders", "type", "enum"), [], "orders.items.type.enum: got []"),
        (("orders", "type", "enum"), [1], "orders.items.type.enum: got [1], expected a list of texts"),
        (("orders", "reason", "pattern"), "(", "orders.items.reason.pattern: got '(', expected a regular expression"),
        (("orders", "reason", "maxLength"), 0, "orders.items.reason.maxLength: got 0, expected at least 1"),
        (("orders", "reason", "minLength"), "2", "orders.items.reason.minLength: got '2'"),
        (("orders", "reason", "x-medkd", "compare"), "fuzzy", "compare: got 'fuzzy', expected one of exact, text, set, dose"),
        (("orders", "reason", "x-medkd", "support"), 3, "support: got 3, expected one of words, literal"),
        (("orders", "reason", "x-medkd", "rule"), "text", "x-medkd.rule: keyword has no effect here; allowed: compare, support"),
        (("orders", "reason", "x-medkd", "tied_to"), "type", "tied_to: got 'type', expected a string of the same list item"),
        (
            ("orders", "supporting_turns", "x-medkd", "tied_to"),
            "type",
            "got 'type', expected a member of the same list item whose",
        ),
        (("x-medkd",), {}, "x-medkd.version: got None"),
        (("x-medkd",), None, "x-medkd: got None, expected at least"),
        (("title",), "my orders", "title: got 'my orders', expected its name"),
        (("orders", "a.b"), {"type": "string"}, "orders.items.a.b: got 'a.b', expected a name"),
        (("required",), [], "required: got [], expected all properties"),
        (("additionalProperties",), True, "additionalProperties: got True, expected false"),
    ],
)
def test_a_document_that_cannot_be_honoured_is_refused_with_place_and_what_is_allowed(
    path: tuple[str, ...], value: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=r"^record schema: ") as error:
        schema_of(changed(path, value))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"type": "surgery"}, 'got "surgery", expected medication or lab or imaging or follow-up or NOT PROVIDED'),
        ({"supporting_turns": ["zero"]}, 'orders[].supporting_turns: got "zero", expected the number that stands before a turn'),
    ],
)
def test_the_keywords_of_the_shipped_orders_hold(order: dict[str, Any], said: str) -> None:
    assert parse_record(json.dumps({"orders": [{**MEDICATION, "type": "Medication"}]}), ORDERS) == {"orders": [MEDICATION]}
    with pytest.raises(InvalidRecord) as problem:
        parse_record(json.dumps({"orders": [{**MEDICATION, **order}]}), ORDERS)
    assert said in problem.value.problem


def test_listed_values_reach_the_teacher_with_the_word_for_none_of_them() -> None:
    members = ORDERS.json_schema()["properties"]["orders"]["items"]["properties"]
    assert members["type"]["enum"] == ["medication", "lab", "imaging", "follow-up", NOT_PROVIDED]
    assert schema_of(changed(("orders", "type", "enum"), members["type"]["enum"])) == ORDERS


@pytest.mark.parametrize(
    ("field", "one", "other", "same"),
    [
        ("type", "medication", "Medication", False),
        ("reason", "type 2 diabetes", "Type two diabetes", True),
        ("reason", "cough and fever", "fever, cough", False),
        ("description", "metformin 0.5 g twice", "metformin 500 milligrams twice", True),
        ("description", "metformin 500 mg", "metformin 500 mcg", False),
        ("supporting_turns", ["3", "9"], ["9", "3"], True),
        ("supporting_turns", ["3", "9"], ["3"], False),
    ],
)
def test_each_field_is_compared_by_its_rule(field: str, one: Any, other: Any, same: bool) -> None:
    gold, predicted = ({"orders": [{**MEDICATION, field: value}]} for value in (one, other))
    assert (score([(gold, predicted, True, True)], ORDERS).exact_match == 1.0) == same


def test_a_set_has_its_words_in_any_order() -> None:
    schema = schema_of(changed(("orders", "reason", "x-medkd"), {"compare": "set"}))
    gold, predicted = ({"orders": [{**MEDICATION, "reason": reason}]} for reason in ("cough and fever", "fever, cough"))
    assert score([(gold, predicted, True, True)], schema).exact_match == 1.0


def test_a_dose_of_the_patient_record_has_a_number_in_digits_or_words() -> None:
    pattern = PATIENT_RECORD.rules["prescription[].dose"].pattern
    assert all(f"|{word}" in pattern for word in NUMBER_WORDS)
