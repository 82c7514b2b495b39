"""The record: what a student writes about one conversation, described once for prompts, validation, linear form and scores.

A record is a plain dict. Its leaves are strings; a fact that the conversation does not give is `NOT PROVIDED`, a list
nobody spoke about is empty, and an explicit denial ("no allergies") is the list ["none"].
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from medkd.rules import ANY_TEXT, NONE, Rule
from medkd.samples import INSTRUCTION, numbered

NOT_PROVIDED = "NOT PROVIDED"

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a record.

    kind: `text` is one string; `list` is a list of strings; `group` is an object; `items` is a list of objects.
    fields: the members of a `group` or of each of the `items`; these are `text` or `list` fields.
    rule: of a `text` or of each entry of a `list`; of `items` only how many there may be.
    """

    name: str
    kind: Literal["text", "list", "group", "items"]
    description: str
    fields: tuple[Field, ...] = ()
    rule: Rule = ANY_TEXT


@dataclass(frozen=True, kw_only=True)
class RecordSchema:
    """The fields of a record in their order. Everything that reads or writes records takes one of these as an argument."""

    name: str
    version: int
    fields: tuple[Field, ...]
    description: str = ""
    """What a record is, as part of a sentence (`the patient's record`); empty: as its name says."""
    instruction: str = ""
    """What a student is asked with each conversation; empty: to extract what `description` says."""

    def __hash__(self) -> int:
        # Schemas are keys of caches; hashing every field anew at each look-up was a tenth of a shard's work.
        return hash((self.name, self.version))

    @property
    def subject(self) -> str:
        """What a record is, as part of a sentence."""
        return self.description or f"the {self.name.replace('_', ' ').replace('-', ' ')}"

    @property
    def task(self) -> str:
        """The instruction of each row of a data set."""
        return self.instruction or (
            f"Extract from the conversation, as JSON, {self.subject}. "
            f"Write {NOT_PROVIDED} for facts the conversation does not give."
        )

    def leaves(self) -> tuple[str, ...]:
        """Paths of all leaves in order; a leaf of an item reads `prescription[].drug`."""
        return tuple(self.rules)

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """The rule of each leaf, by its path."""
        return {path: leaf.rule for field in self.fields for path, leaf in _leaf_fields(field)}

    def shown(self, conversation: str) -> str:
        """The conversation as teacher and student read it: with the numbers of its turns where the record has to name them."""
        return numbered(conversation) if any(rule.support == "turn" for rule in self.rules.values()) else conversation

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema in the strict form that teachers accept: all properties required, none additional, no bounds."""
        return _object_schema(self.fields)

    def empty(self) -> Record:
        """The record that abstains everywhere."""
        return {field.name: _empty_value(field) for field in self.fields}

    def canonical(self, record: Record) -> str:
        """Compact JSON with the schema's key order: the one text form of a record that is stored, trained on and compared.

        The record must be valid in the schema's shape (`quality.schema` checks); KeyError otherwise.
        """
        return json.dumps(_ordered(self.fields, record), ensure_ascii=False, separators=(",", ":"))

    def values(self, record: Record) -> Iterator[tuple[str, str]]:
        """(leaf path, value) pairs in schema order, one for each text and each list entry, `NOT PROVIDED` included."""
        for field in self.fields:
            yield from _values(field, record[field.name], field.name)

    def claims(self, record: Record) -> Iterator[tuple[str, str, Record | None]]:
        """As `values`, each with the item of a list that it belongs to; None outside of such."""
        for field in self.fields:
            for item in record[field.name] if field.kind == "items" else [None]:
                value = record[field.name] if item is None else [item]
                yield from ((path, said, item) for path, said in _values(field, value, field.name))

    def describe(self) -> str:
        """The fields as indented lines for a prompt."""
        return "\n".join(line for field in self.fields for line in _describe(field, 0))


def _leaf_fields(field: Field, prefix: str = "") -> Iterator[tuple[str, Field]]:
    path = prefix + field.name
    if field.kind in ("text", "list"):
        yield path, field
    else:
        opening = path + ("[]." if field.kind == "items" else ".")
        for member in field.fields:
            yield from _leaf_fields(member, opening)


def _field_schema(field: Field) -> dict[str, Any]:
    if field.kind == "text":
        return {**_text_schema(field.rule, NOT_PROVIDED), "description": field.description}
    if field.kind == "list":
        return {"type": "array", "items": _text_schema(field.rule, NONE), "description": field.description}
    schema = _object_schema(field.fields)
    if field.kind == "items":
        schema = {"type": "array", "items": schema}
    return {**schema, "description": field.description}


def _text_schema(rule: Rule, silent: str) -> dict[str, Any]:
    """One string; where its values are listed, with the word for none of them."""
    return {"type": "string", "enum": [*rule.enum, silent]} if rule.enum else {"type": "string"}


def _object_schema(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }


def _empty_value(field: Field) -> Any:
    if field.kind == "text":
        return NOT_PROVIDED
    if field.kind == "group":
        return {member.name: _empty_value(member) for member in field.fields}
    return []


def _ordered(fields: tuple[Field, ...], value: dict[str, Any]) -> dict[str, Any]:
    ordered: dict[str, Any] = {}
    for field in fields:
        member = value[field.name]
        if field.kind == "group":
            member = _ordered(field.fields, member)
        elif field.kind == "items":
            member = [_ordered(field.fields, item) for item in member]
        ordered[field.name] = member
    return ordered


def _values(field: Field, value: Any, path: str) -> Iterator[tuple[str, str]]:
    if field.kind == "text":
        yield path, value
    elif field.kind == "list":
        for entry in value:
            yield path, entry
    elif field.kind == "group":
        for member in field.fields:
            yield from _values(member, value[member.name], f"{path}.{member.name}")
    else:
        for item in value:
            for member in field.fields:
                yield from _values(member, item[member.name], f"{path}[].{member.name}")


def _describe(field: Field, depth: int) -> Iterator[str]:
    shape = {"text": "string", "list": "list of strings", "group": "object", "items": "list of objects"}[field.kind]
    yield f"{'  ' * depth}- {field.name} ({shape}): {field.description}{field.rule.hint}"
    for member in field.fields:
        yield from _describe(member, depth + 1)


def _text(name: str, description: str, rule: Rule = ANY_TEXT) -> Field:
    return Field(name=name, kind="text", description=description, rule=rule)


def _list(name: str, description: str, rule: Rule) -> Field:
    return Field(name=name, kind="list", description=description, rule=rule)


_AMOUNT = (
    r"(?i)\d|\b(an?|half|quarter|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    r"|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand)\b"
)
"""A number, in digits or in words."""

PATIENT_RECORD = RecordSchema(
    name="patient_record",
    version=1,
    description="the patient's record",
    instruction=INSTRUCTION,
    fields=(
        Field(
            name="patient_details",
            kind="group",
            description="who the patient is",
            fields=(
                _text("name", "the patient's name as spoken", Rule(support="name")),
                _text(
                    "age",
                    "age in years, digits only",
                    Rule(support="age", pattern="^([0-9]|[1-9][0-9]|1[01][0-9]|120)$", expected="digits from 0 to 120"),
                ),
                _text("sex", "male or female", Rule(support="sex")),
                _text("occupation", "the patient's work"),
            ),
        ),
        Field(
            name="medical_history",
            kind="group",
            description="what was there before this visit",
            fields=(
                _list(
                    "conditions",
                    "earlier or chronic conditions of the patient, never the family's",
                    Rule(
                        whose="patient",
                        denied_about=tuple(
                            "condition problem histor illness disease diagnos health medical chronic suffer".split()
                        ),
                    ),
                ),
                _list(
                    "medications",
                    "medicines taken before this visit, names only",
                    Rule(
                        support="drug",
                        whose="patient",
                        denied_about=tuple("medic med tak pill drug prescri tablet counter supplement remed".split()),
                    ),
                ),
                _list(
                    "allergies",
                    'allergies; ["none"] when the patient says there are none',
                    Rule(whose="patient", denied_about=("allerg", "react", "intoleran", "sensitiv")),
                ),
                _list(
                    "family_history",
                    "conditions of relatives",
                    Rule(
                        whose="family",
                        denied_about=tuple("famil mother father parent relative sibling brother sister mom dad run".split()),
                    ),
                ),
            ),
        ),
        Field(
            name="current_diagnosis",
            kind="group",
            description="what this visit is about",
            fields=(
                _text("condition", "the diagnosis the doctor names", Rule(whose="patient")),
                _list("symptoms", "symptoms the patient reports now", Rule(whose="patient")),
                _text("duration", "how long the symptoms have lasted, as spoken"),
            ),
        ),
        Field(
            name="prescription",
            kind="items",
            description="medicines prescribed in this visit",
            fields=(
                _text("drug", "name of the medicine", Rule(support="drug")),
                _text(
                    "dose",
                    "amount with unit, for example 20 mg",
                    Rule(
                        compare="dose",
                        support="literal",
                        tied_to="drug",
                        pattern=_AMOUNT,
                        expected="an amount with its number, for example 20 mg",
                    ),
                ),
                _text("frequency", "how often, as spoken"),
                _text("duration", "for how long, as spoken"),
            ),
        ),
    ),
)

RECORD_SCHEMAS = {PATIENT_RECORD.name: PATIENT_RECORD}
