"""JSON Schemas as structured output takes them, purely: vendors refuse what they do not know instead of ignoring it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]

_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_BOUNDS |= {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems"}


def _remembered(form: Callable[[Schema], Schema]) -> Callable[[Schema], Schema]:
    """Remembers the form of the last schema: calls in a row all bring the same object, which nobody changes."""
    last: list[tuple[Schema, Schema]] = []

    def found(schema: Schema) -> Schema:
        known = last[-1] if last else None
        if known is None or known[0] is not schema:
            known = (schema, form(schema))
            last[:] = [known]
        return known[1]

    return found


@_remembered
def strict(schema: Schema) -> Schema:
    """The schema in OpenAI's strict form: every property required, none additional; one that was optional may be null.

    Not to be changed by the caller, as with every schema here: equal questions share it.
    """

    def closed(part: Schema) -> Schema:
        if "properties" not in part:
            return part
        required = set(part.get("required", ()))
        members = {name: member if name in required else _or_null(member) for name, member in part["properties"].items()}
        return {**part, "properties": members, "required": list(members), "additionalProperties": False}

    return _everywhere(schema, closed)


@_remembered
def unbounded(schema: Schema) -> Schema:
    """The schema as Anthropic's output format takes it: closed objects, and no bounds on numbers, lengths or counts."""

    def closed(part: Schema) -> Schema:
        kept = {key: value for key, value in part.items() if key not in _BOUNDS}
        return {**kept, "additionalProperties": False} if "properties" in part else kept

    return _everywhere(schema, closed)


def _or_null(schema: Schema) -> Schema:
    kinds = schema.get("type")
    if kinds is None:
        return {"anyOf": [schema, {"type": "null"}]}
    kinds = kinds if isinstance(kinds, list) else [kinds]
    nullable = {**schema, "type": list(dict.fromkeys([*kinds, "null"]))}
    if "enum" in schema:
        nullable["enum"] = list(dict.fromkeys([*schema["enum"], None]))
    return nullable


def _everywhere(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """The schema with `change` applied to it and to every schema inside."""
    return change(dict(_with_inner(schema, change)))


def _with_inner(schema: Schema, change: Callable[[Schema], Schema]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            yield key, {name: _everywhere(member, change) for name, member in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            yield key, _everywhere(value, change)
        elif key in ("anyOf", "allOf", "oneOf") and isinstance(value, list):
            yield key, [_everywhere(member, change) for member in value]
        else:
            yield key, value
