"""Arbitrary schemas' worth of arbitrary records: any text, tags, brackets, escapes and spaces inside values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Field, RecordSchema

# Same leaf names in several places, a text field beside groups, lists inside items.
NESTED = RecordSchema(
    name="nested",
    version=1,
    fields=(
        Field(name="note", kind="text", description=""),
        Field(name="duration", kind="text", description=""),
        Field(name="tags", kind="list", description=""),
        Field(
            name="visit",
            kind="group",
            description="",
            fields=(
                Field(name="duration", kind="text", description=""),
                Field(name="tags", kind="list", description=""),
            ),
        ),
        Field(
            name="drug",
            kind="items",
            description="",
            fields=(
                Field(name="drug", kind="text", description=""),
                Field(name="tags", kind="list", description=""),
                Field(name="duration", kind="text", description=""),
            ),
        ),
        Field(name="plan", kind="items", description="", fields=(Field(name="step", kind="text", description=""),)),
    ),
)
SCHEMAS = (PATIENT_RECORD, NESTED)

_TRICKY = st.sampled_from(
    [
        "[age]",
        "[[",
        "]",
        "[",
        " [drug] x",
        "a  b",
        " ",
        "line\nend",
        '"quoted"',
        "{brace}",
        "|n",
        "||",
        "Ünï · 痛み 🧬",
        "e\u0301",
        "<end>",
    ]
)
_CHARACTERS = st.characters(exclude_categories=["Cs"])
VALUES = st.lists(st.one_of(st.text(_CHARACTERS, max_size=8), _TRICKY), min_size=1, max_size=4).map("".join)


def records_of(schema: RecordSchema) -> st.SearchStrategy[dict[str, Any]]:
    """Every record of the schema's shape."""
    return _object(schema.fields)


def _object(fields: tuple[Field, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field.name: _value(field) for field in fields})


def _value(field: Field) -> st.SearchStrategy[Any]:
    if field.kind == "text":
        return st.one_of(st.just(NOT_PROVIDED), VALUES)
    if field.kind == "list":
        return st.lists(VALUES, max_size=3)
    members = _object(field.fields)
    return members if field.kind == "group" else st.lists(members, max_size=3)
