"""JSON Schemas that come with requests: whether strict output takes them, and a value brought into their shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medkd.records import NOT_PROVIDED


def strictness_problem(schema: Any, place: str) -> str | None:
    """Why strict structured output refuses a schema (open objects, properties that may be left out), or None."""
    if not isinstance(schema, dict):
        return f"{place}: schema must be an object"
    members = {f"{place}.{name}": member for name, member in schema.get("properties", {}).items()}
    if schema.get("type") == "object" or members:
        if schema.get("additionalProperties") is not False:
            return f"In context={place}, 'additionalProperties' is required to be supplied and to be false."
        if set(schema.get("required", ())) != set(schema.get("properties", {})):
            return f"In context={place}, 'required' is required to be an array including every key in properties."
    if "items" in schema:
        members[f"{place}[]"] = schema["items"]
    problems = (strictness_problem(member, inside) for inside, member in members.items())
    return next((problem for problem in problems if problem), None)


def conform(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value in the shape of a JSON Schema: known members kept, unknown ones dropped, missing ones empty."""
    kinds = schema.get("type")
    kind = next((name for name in kinds if name != "null"), None) if isinstance(kinds, list) else kinds
    if kind == "object" or (kind is None and "properties" in schema):
        members = value if isinstance(value, dict) else {}
        return {name: conform(members.get(name), member) for name, member in schema.get("properties", {}).items()}
    if kind == "array":
        return [conform(entry, schema.get("items", {})) for entry in value] if isinstance(value, list) else []
    if kind in ("number", "integer"):
        return value if isinstance(value, int | float) else 0
    if kind == "boolean":
        return value if isinstance(value, bool) else False
    if schema.get("enum"):
        unknown = NOT_PROVIDED if NOT_PROVIDED in schema["enum"] else schema["enum"][0]
        return value if value in schema["enum"] else unknown
    return value if isinstance(value, str) else NOT_PROVIDED
