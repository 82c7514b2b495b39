"""Arbitrary record schemas of all that documents allow, and records that are valid in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from hypothesis import strategies as st

from medkd.records import NOT_PROVIDED, Field, Record, RecordSchema
from medkd.rules import Compare, Rule, Support
from medkd.schema_documents import schema_of

ORDERS_FILE = Path(__file__).parents[1] / "configs" / "medication_orders.json"
ORDERS = schema_of(json.loads(ORDERS_FILE.read_text()))

_NAMES = st.sampled_from(["age", "drug", "dose", "x", "A_1", "drug_2", "reason", "note"])
_DESCRIPTIONS = st.text(st.characters(categories=("L", "Zs", "P")), max_size=20)
# Values that a vocabulary finds hard are `tests.student.records_strategy`'s matter; these are said in a conversation.
_WORDS = st.lists(st.sampled_from("20 mg of gout half an [x] day | Ünï 12.5 twice".split()), min_size=1, max_size=4).map(" ".join)
_DOMAINS = st.one_of(
    st.just({}),
    st.lists(_WORDS, min_size=1, max_size=3, unique_by=str.lower).map(lambda values: {"enum": tuple(values)}),
    st.just({"pattern": "^[0-9]+$", "max_length": 4}),
    st.integers(1, 9).map(lambda least: {"min_length": least, "max_length": least + 3}),
)


@st.composite
def _rules(draw: st.DrawFn, *, is_list: bool) -> Rule:
    return Rule(
        compare=draw(st.sampled_from(get_args(Compare))),
        support=draw(st.sampled_from([one for one in get_args(Support) if one != "sex"])),
        max_items=draw(st.none() | st.integers(1, 4)) if is_list else None,
        denied_about=draw(st.sampled_from([(), ("allerg", "react")])),
        **draw(_DOMAINS),
    )


@st.composite
def _fields(draw: st.DrawFn, *, groups: bool) -> tuple[Field, ...]:
    kinds = ("text", "list", "group", "items") if groups else ("text", "list")
    fields = []
    for name in draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(kinds))
        leaf = kind in ("text", "list")
        counted = Rule(max_items=draw(st.none() | st.integers(1, 3))) if kind == "items" else Rule()
        fields.append(
            Field(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                description=draw(_DESCRIPTIONS),
                fields=() if leaf else draw(_fields(groups=False)),
                rule=draw(_rules(is_list=kind == "list")) if leaf else counted,
            )
        )
    return tuple(fields)


@st.composite
def schemas(draw: st.DrawFn) -> RecordSchema:
    return RecordSchema(
        name="own", version=draw(st.integers(1, 9)), fields=draw(_fields(groups=True)), description=draw(_DESCRIPTIONS)
    )


def valid_records(schema: RecordSchema) -> st.SearchStrategy[Record]:
    return _object(schema.fields, whole=True)


def _object(fields: tuple[Field, ...], *, whole: bool) -> st.SearchStrategy[dict[str, Any]]:
    found = st.fixed_dictionaries({field.name: _value(field) for field in fields})
    # An item that says nothing is none.
    return found if whole else found.filter(lambda item: any(value not in (NOT_PROVIDED, []) for value in item.values()))


def _value(field: Field) -> st.SearchStrategy[Any]:
    most = 3 if field.rule.max_items is None else min(3, field.rule.max_items)
    if field.kind == "text":
        return st.just(NOT_PROVIDED) | _texts(field.rule)
    if field.kind == "list":
        return st.lists(_texts(field.rule), max_size=most, unique_by=str.lower) | st.just(["none"])
    if field.kind == "group":
        return _object(field.fields, whole=True)
    members = _object(field.fields, whole=False)
    return st.lists(members, max_size=most, unique_by=lambda item: json.dumps(item, sort_keys=True).lower())


def _texts(rule: Rule) -> st.SearchStrategy[str]:
    if rule.enum:
        return st.sampled_from(rule.enum)
    if rule.pattern:
        return st.from_regex(re.compile("[0-9]{1,4}"), fullmatch=True)
    if rule.max_length is not None:
        return st.text("abc[]é", min_size=rule.min_length, max_size=rule.max_length)
    return _WORDS
