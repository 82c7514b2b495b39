"""The record: what a student writes about one conversation, described once for prompts, validation, linear form and scores.

A record is a plain dict. Its leaves are strings; a fact that the conversation does not give is `NOT PROVIDED`, a list
nobody spoke about is empty, and an explicit denial ("no allergies") is the list ["none"].
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

NOT_PROVIDED = "NOT PROVIDED"

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a record.

    kind: `text` is one string; `list` is a list of strings; `group` is an object; `items` is a list of objects.
    fields: the members of a `group` or of each of the `items`; these are `text` or `list` fields.
    """

    name: str
    kind: Literal["text", "list", "group", "items"]
    description: str
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RecordSchema:
    """The fields of a record in their order. Everything that reads or writes records takes one of these as an argument."""

    name: str
    version: int
    fields: tuple[Field, ...]

    def __hash__(self) -> int:
        # Schemas are keys of caches; hashing every field anew at each look-up was a tenth of a shard's work.
        return hash((self.name, self.version))

    def leaves(self) -> tuple[str, ...]:
        """Paths of all leaves in order; a leaf of an item reads `prescription[].drug`."""
        return tuple(path for field in self.fields for path in _leaf_paths(field))

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema in the strict form that teachers accept: all properties required, none additional, no bounds."""
        return _object_schema(self.fields)

    def document(self) -> dict[str, Any]:
        """The whole schema as one JSON Schema document, its version under `x-medkd`; `from_document` reads it back."""
        return {"title": self.name, "x-medkd": {"version": self.version}, **self.json_schema()}

    @classmethod
    def from_document(cls, document: Any) -> RecordSchema:
        """The schema that `document` wrote. ValueError names the place in it, what stands there and what is allowed."""
        if not isinstance(document, dict):
            raise ValueError(f"record schema: got {type(document).__name__}, expected an object")
        name, own = document.get("title"), document.get("x-medkd")
        version = own.get("version") if isinstance(own, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError(f"record schema: title: got {name!r}, expected its name")
        if type(version) is not int or version < 1:
            raise ValueError(f"record schema: x-medkd.version: got {version!r}, expected a whole number from 1")
        return cls(name=name, version=version, fields=_fields_of(document, "", groups=True))

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

    def describe(self) -> str:
        """The fields as indented lines for a prompt."""
        return "\n".join(line for field in self.fields for line in _describe(field, 0))


def _leaf_paths(field: Field, prefix: str = "") -> Iterator[str]:
    path = prefix + field.name
    if field.kind in ("text", "list"):
        yield path
    else:
        opening = path + ("[]." if field.kind == "items" else ".")
        for member in field.fields:
            yield from _leaf_paths(member, opening)


def _field_schema(field: Field) -> dict[str, Any]:
    if field.kind == "text":
        return {"type": "string", "description": field.description}
    if field.kind == "list":
        return {"type": "array", "items": {"type": "string"}, "description": field.description}
    schema = _object_schema(field.fields)
    if field.kind == "items":
        schema = {"type": "array", "items": schema}
    return {**schema, "description": field.description}


def _object_schema(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _field_schema(field) for field in fields},
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }


def _fields_of(schema: dict[str, Any], place: str, *, groups: bool) -> tuple[Field, ...]:
    members = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(members, dict) or not members:
        raise ValueError(f"record schema: {place or 'top'}: expected type object with properties")
    return tuple(_field_of(name, member, f"{place}.{name}".lstrip("."), groups=groups) for name, member in members.items())


def _field_of(name: str, schema: Any, place: str, *, groups: bool) -> Field:
    schema = schema if isinstance(schema, dict) else {}
    kind, description = schema.get("type"), schema.get("description", "")
    if not isinstance(description, str):
        raise ValueError(f"record schema: {place}.description: got {description!r}, expected text")
    if kind == "string":
        return Field(name=name, kind="text", description=description)
    entries = schema.get("items") if kind == "array" else None
    if isinstance(entries, dict) and entries.get("type") == "string":
        return Field(name=name, kind="list", description=description)
    if groups and kind == "object":
        return Field(name=name, kind="group", description=description, fields=_fields_of(schema, place, groups=False))
    if groups and isinstance(entries, dict):
        members = _fields_of(entries, f"{place}.items", groups=False)
        return Field(name=name, kind="items", description=description, fields=members)
    allowed = "string, array of strings" + (", object, array of objects" if groups else "; groups do not nest")
    raise ValueError(f"record schema: {place}.type: got {kind!r}, expected {allowed}")


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
    yield f"{'  ' * depth}- {field.name} ({shape}): {field.description}"
    for member in field.fields:
        yield from _describe(member, depth + 1)


def _text(name: str, description: str) -> Field:
    return Field(name=name, kind="text", description=description)


def _list(name: str, description: str) -> Field:
    return Field(name=name, kind="list", description=description)


PATIENT_RECORD = RecordSchema(
    name="patient_record",
    version=1,
    fields=(
        Field(
            name="patient_details",
            kind="group",
            description="who the patient is",
            fields=(
                _text("name", "the patient's name as spoken"),
                _text("age", "age in years, digits only"),
                _text("sex", "male or female"),
                _text("occupation", "the patient's work"),
            ),
        ),
        Field(
            name="medical_history",
            kind="group",
            description="what was there before this visit",
            fields=(
                _list("conditions", "earlier or chronic conditions of the patient, never the family's"),
                _list("medications", "medicines taken before this visit, names only"),
                _list("allergies", 'allergies; ["none"] when the patient says there are none'),
                _list("family_history", "conditions of relatives"),
            ),
        ),
        Field(
            name="current_diagnosis",
            kind="group",
            description="what this visit is about",
            fields=(
                _text("condition", "the diagnosis the doctor names"),
                _list("symptoms", "symptoms the patient reports now"),
                _text("duration", "how long the symptoms have lasted, as spoken"),
            ),
        ),
        Field(
            name="prescription",
            kind="items",
            description="medicines prescribed in this visit",
            fields=(
                _text("drug", "name of the medicine"),
                _text("dose", "amount with unit, for example 20 mg"),
                _text("frequency", "how often, as spoken"),
                _text("duration", "for how long, as spoken"),
            ),
        ),
    ),
)

RECORD_SCHEMAS = {PATIENT_RECORD.name: PATIENT_RECORD}
