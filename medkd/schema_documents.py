"""A record schema as a JSON Schema document: how teams write their own, and how plans and students carry one.

    {"title": "orders", "description": "the orders of this visit", "x-medkd": {"version": 1}, "type": "object",
     "properties": {"drug": {"type": "string", "description": "its name", "x-medkd": {"support": "drug"}}}}

Every keyword of a document has its effect, or the document is refused: whoever writes `minimum` must not be left to think that
numbers are checked. Shape: objects of strings and lists of strings, and lists of such objects, one level deep. All fields are
always present and no other ones, as teachers' strict output wants it, so `required` and `additionalProperties` may be left out.
Fields stand in the order of `required`, else in that of `properties`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from medkd.records import NOT_PROVIDED, Field, RecordSchema
from medkd.rules import ANY_TEXT, NONE, Compare, Rule, Support, Whose

_NOTES = ("$schema", "$id", "$comment", "title", "examples")
"""Keywords that say nothing about a record."""
_STRING = ("type", "enum", "pattern", "minLength", "maxLength", *_NOTES)
_OBJECT = ("type", "properties", "required", "additionalProperties", *_NOTES)
_ARRAY = ("type", "items", "maxItems", "uniqueItems", "description", *_NOTES)
_CHOICES: dict[str, tuple[str, ...]] = {"compare": get_args(Compare), "support": get_args(Support), "whose": get_args(Whose)}
_OWN = (*_CHOICES, "expected", "tied_to", "denied_about")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
"""What teachers take as a property and the linear form as a tag; dots and brackets are for paths."""
_TITLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)


def document_of(schema: RecordSchema) -> dict[str, Any]:
    """The whole schema as one JSON Schema document; `schema_of` reads it back."""
    own = {"version": schema.version, **({"instruction": schema.instruction} if schema.instruction else {})}
    described = {"description": schema.description} if schema.description else {}
    return {"title": schema.name, **described, "x-medkd": own, **_object_document(schema.fields)}


def schema_of(document: Any) -> RecordSchema:
    """The schema that a document writes. ValueError names the place in it, what stands there and what is allowed."""
    if not isinstance(document, dict):
        raise ValueError(f"record schema: got {type(document).__name__}, expected an object")
    _check_keywords(document, (*_OBJECT, "description", "x-medkd"), "")
    name, own = document.get("title"), document.get("x-medkd")
    if not isinstance(name, str) or not _TITLE.fullmatch(name):
        raise _wrong("title", name, "its name: a letter, then at most 63 letters, digits, _ or -")
    if not isinstance(own, dict):
        raise _wrong("x-medkd", own, 'at least {"version": 1}')
    _check_keywords(own, ("version", "instruction"), "x-medkd")
    version = own.get("version")
    if type(version) is not int or version < 1:
        raise _wrong("x-medkd.version", version, "a whole number from 1")
    return RecordSchema(
        name=name,
        version=version,
        fields=_fields_of(document, "", groups=True),
        description=_text(document, "description", ""),
        instruction=_text(own, "instruction", "x-medkd"),
    )


def _object_document(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {field.name: _field_document(field) for field in fields},
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }


def _field_document(field: Field) -> dict[str, Any]:
    rule, described = field.rule, {"description": field.description}
    counted = {} if rule.max_items is None else {"maxItems": rule.max_items}
    if field.kind == "group":
        return {**_object_document(field.fields), **described}
    if field.kind == "items":
        return {"type": "array", "items": _object_document(field.fields), **counted, **described}
    text = {"type": "string", **_domain_document(rule)}
    own = {name: value for name in _OWN if (value := getattr(rule, name)) != getattr(ANY_TEXT, name)}
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    shape = text if field.kind == "text" else {"type": "array", "items": text, **counted}
    return {**shape, **described, **({"x-medkd": own} if own else {})}


def _domain_document(rule: Rule) -> dict[str, Any]:
    written = {"enum": list(rule.enum), "pattern": rule.pattern, "minLength": rule.min_length, "maxLength": rule.max_length}
    return {keyword: value for keyword, value in written.items() if value or (keyword == "maxLength" and value is not None)}


def _fields_of(schema: Mapping[str, Any], place: str, *, groups: bool) -> tuple[Field, ...]:
    members = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(members, dict) or not members:
        raise ValueError(f"record schema: {place or 'top'}: expected type object with properties")
    if schema.get("additionalProperties", False) is not False:
        raise _wrong(_at(place, "additionalProperties"), schema["additionalProperties"], "false: records have no other fields")
    required = schema.get("required", list(members))
    if not isinstance(required, list) or sorted(map(str, required)) != sorted(map(str, members)):
        wanted = f"all properties, or leave it out: a field that the conversation does not give is {NOT_PROVIDED}"
        raise _wrong(_at(place, "required"), required, wanted)
    # Its order is the fields': files with sorted keys, such as plan.json, lose that of `properties`.
    fields = tuple(_field_of(name, members[name], _at(place, name), groups=groups) for name in required)
    for field in fields:
        _check_tie(field, () if groups else fields, place)
    return fields


def _check_tie(field: Field, beside: tuple[Field, ...], place: str) -> None:
    """ValueError where a field is tied to what is no fitting member of its list item. beside: the item's members."""
    rule = field.rule
    if rule.support == "turn":
        fitting = [one.name for one in beside if one.rule.support not in ("turn", "nothing")]
        wanted = "a member of the same list item whose support is neither turn nor nothing"
    else:
        fitting = [one.name for one in beside if one.kind == "text" and one.rule.support == "drug"]
        wanted = "a string of the same list item whose support is drug"
    if rule.tied_to and rule.tied_to not in fitting:
        raise _wrong(_at(place, f"{field.name}.x-medkd.tied_to"), rule.tied_to, wanted)


def _field_of(name: str, schema: Any, place: str, *, groups: bool) -> Field:
    if not _NAME.fullmatch(name):
        raise _wrong(place, name, "a name: a letter, then at most 63 letters, digits or _")
    schema = schema if isinstance(schema, dict) else {}
    kind, description = schema.get("type"), _text(schema, "description", place)
    if kind == "string":
        _check_keywords(schema, (*_STRING, "description", "x-medkd"), place)
        rule = _rule_of(schema, schema, place, is_list=False)
        return Field(name=name, kind="text", description=description, rule=rule)
    entries = schema.get("items") if kind == "array" else None
    if isinstance(entries, dict) and entries.get("type") == "string":
        _check_keywords(schema, (*_ARRAY, "x-medkd"), place)
        _check_keywords(entries, _STRING, f"{place}.items")
        return Field(name=name, kind="list", description=description, rule=_rule_of(schema, entries, place, is_list=True))
    if groups and kind == "object":
        _check_keywords(schema, (*_OBJECT, "description"), place)
        return Field(name=name, kind="group", description=description, fields=_fields_of(schema, place, groups=False))
    if groups and isinstance(entries, dict):
        _check_keywords(schema, _ARRAY, place)
        _check_keywords(entries, _OBJECT, f"{place}.items")
        members = _fields_of(entries, f"{place}.items", groups=False)
        rule = Rule(max_items=_max_items(schema, place))
        return Field(name=name, kind="items", description=description, fields=members, rule=rule)
    allowed = "string, array of strings" + (", object, array of objects" if groups else "; groups do not nest")
    raise _wrong(f"{place}.type", kind, f"{allowed}. Numbers and flags are strings, with a pattern or an enum")


def _rule_of(schema: Mapping[str, Any], text: Mapping[str, Any], place: str, *, is_list: bool) -> Rule:
    """The rule of a leaf. text: where the keywords of one string stand, which for a list is under `items`."""
    at = f"{place}.items" if is_list else place
    own = schema.get("x-medkd", {})
    if not isinstance(own, dict):
        raise _wrong(f"{place}.x-medkd", own, "an object")
    _check_keywords(own, _OWN, f"{place}.x-medkd")
    for name, choices in _CHOICES.items():
        if own.get(name, choices[0]) not in choices:
            raise _wrong(f"{place}.x-medkd.{name}", own[name], f"one of {', '.join(choices)}")
    least, most = _count(text, "minLength", at), _count(text, "maxLength", at)
    if most is not None and most < max(1, least or 0):
        raise _wrong(f"{at}.maxLength", most, f"at least {max(1, least or 0)}")
    return Rule(
        **{name: own[name] for name in _CHOICES if name in own},
        expected=_text(own, "expected", f"{place}.x-medkd"),
        tied_to=_text(own, "tied_to", f"{place}.x-medkd"),
        denied_about=tuple(_strings(own, "denied_about", f"{place}.x-medkd")),
        enum=_enum(text, at, silent=NONE if is_list else NOT_PROVIDED),
        pattern=_pattern(text, at),
        min_length=least or 0,
        max_length=most,
        max_items=_max_items(schema, place) if is_list else None,
    )


def _enum(text: Mapping[str, Any], place: str, silent: str) -> tuple[str, ...]:
    """The listed values without the word for none of them, which may stand everywhere."""
    values = _strings(text, "enum", place)
    folded = [value.strip().lower() for value in values]
    if "enum" in text and (not any(folded) or len(set(folded)) < len(folded) or any(value != value.strip() for value in values)):
        raise _wrong(f"{place}.enum", values, "texts that differ in more than case and outer spaces")
    return tuple(value for value in values if value != silent)


def _pattern(text: Mapping[str, Any], place: str) -> str:
    pattern = _text(text, "pattern", place)
    try:
        re.compile(pattern)
    except re.error as error:
        raise _wrong(f"{place}.pattern", pattern, f"a regular expression ({error})") from None
    return pattern


def _max_items(schema: Mapping[str, Any], place: str) -> int | None:
    if schema.get("uniqueItems", True) is not True:
        raise _wrong(f"{place}.uniqueItems", schema["uniqueItems"], "true: a list holds nothing twice")
    most = _count(schema, "maxItems", place)
    if most == 0:
        raise _wrong(f"{place}.maxItems", most, "at least 1")
    return most


def _check_keywords(schema: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    unknown = [keyword for keyword in schema if keyword not in known]
    if unknown:
        allowed = ", ".join(keyword for keyword in known if not keyword.startswith("$"))
        raise ValueError(f"record schema: {_at(place, str(unknown[0]))}: keyword has no effect here; allowed: {allowed}")


def _count(schema: Mapping[str, Any], keyword: str, place: str) -> int | None:
    value = schema.get(keyword)
    if keyword in schema and (type(value) is not int or value < 0):
        raise _wrong(f"{place}.{keyword}", value, "a whole number from 0")
    return value


def _text(schema: Mapping[str, Any], keyword: str, place: str) -> str:
    value = schema.get(keyword, "")
    if not isinstance(value, str):
        raise _wrong(_at(place, keyword), value, "text")
    return value


def _strings(schema: Mapping[str, Any], keyword: str, place: str) -> list[str]:
    value = schema.get(keyword, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
        raise _wrong(f"{place}.{keyword}", value, "a list of texts")
    return value


def _at(place: str, name: str) -> str:
    return f"{place}.{name}".lstrip(".")


def _wrong(place: str, got: object, expected: str) -> ValueError:
    return ValueError(f"record schema: {place}: got {got!r}, expected {expected}")
