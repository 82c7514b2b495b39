"""The linear form: a record as one line of text without braces or quotes, for students to read and write.

    [age] 54[sex] female[conditions] asthma[conditions] gout[prescription][drug] naproxen[dose] 500 mg

Each value follows the tag of its field, with a space before it as in running text; an item of an `items` field opens with
the field's own tag. What says nothing (a text that is NOT PROVIDED, an empty list) is left out and restored from the schema,
so the text is about a third of the JSON's length and a student spends its loss on facts; that is why all families use it.
T5's vocabulary can say it, as it has no `{` `}`. A `[` inside a value is doubled. Lossless for every record of the schema.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medkd.records import NOT_PROVIDED, Field, Record, RecordSchema

_BRACKET = re.compile(r"\[\[|\[([^\[\]]*)\]")


class BrokenLinearError(ValueError):
    """The text is not the linear form of a record of this schema. The message quotes no value."""


@dataclass(frozen=True)
class Slot:
    """What a tag stands for: a field, and the group or items field it is a member of."""

    path: tuple[str, ...]
    kind: str
    parent: Field | None


class LinearForm:
    """Writes and reads the linear form of one schema's records."""

    def __init__(self, schema: RecordSchema) -> None:
        self.schema = schema
        self.slots = _slots(schema)
        """What each tag stands for, in schema order."""
        self._tags = {slot.path: tag for tag, slot in self.slots.items()}

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags as they stand in the text, in schema order."""
        return tuple(self.slots)

    def write(self, record: Record) -> str:
        """The record's linear form; KeyError where the record lacks a field."""
        return "".join(self._pieces(record))

    def read(self, text: str) -> Record:
        """The record that `write` turns into this text; BrokenLinearError where there is none."""
        record = self.schema.empty()
        for tag, value in _segments(text):
            if tag not in self.slots:
                raise BrokenLinearError("a tag that no field has")
            self._put(record, tag, value)
        return record

    def _pieces(self, record: Record) -> Iterator[str]:
        for field in self.schema.fields:
            value = record[field.name]
            if field.kind == "group":
                yield from self._members(field, value)
            elif field.kind == "items":
                for item in value:
                    yield self._tags[field.name,]
                    yield from self._members(field, item)
            else:
                yield from self._values((field.name,), value)

    def _members(self, parent: Field, holder: dict[str, Any]) -> Iterator[str]:
        for member in parent.fields:
            yield from self._values((parent.name, member.name), holder[member.name])

    def _values(self, path: tuple[str, ...], value: str | list[str]) -> Iterator[str]:
        if value == NOT_PROVIDED:
            return
        for entry in [value] if isinstance(value, str) else value:
            yield f"{self._tags[path]} {entry.replace('[', '[[')}"

    def _put(self, record: Record, tag: str, value: str) -> None:
        slot = self.slots[tag]
        if slot.kind == "items":
            if value:
                raise BrokenLinearError(f"text right after {tag}")
            record[slot.path[0]].append(_empty_item(self.schema, slot.path[0]))
            return
        holder, name = _holder(record, slot, tag), slot.path[-1]
        if slot.kind == "list":
            holder[name].append(value)
        elif holder[name] == NOT_PROVIDED:
            holder[name] = value
        else:
            raise BrokenLinearError(f"{tag} twice")


def _holder(record: Record, slot: Slot, tag: str) -> dict[str, Any]:
    """The object that has the slot's field: the record, a group, or the item opened last."""
    if slot.parent is None:
        return record
    inner = record[slot.parent.name]
    if slot.parent.kind == "items":
        if not inner:
            raise BrokenLinearError(f"{tag} before an item")
        inner = inner[-1]
    found: dict[str, Any] = inner
    return found


def _empty_item(schema: RecordSchema, name: str) -> dict[str, Any]:
    members = next(field.fields for field in schema.fields if field.name == name)
    return {member.name: [] if member.kind == "list" else NOT_PROVIDED for member in members}


def _slots(schema: RecordSchema) -> dict[str, Slot]:
    """Tag to slot, in schema order. A tag is the shortest end of the field's path that no other path shares."""
    slots = [slot for field in schema.fields for slot in _field_slots(field)]
    ends = Counter(end for slot in slots for end in _ends(slot.path))
    return {f"[{next((end for end in _ends(slot.path) if ends[end] == 1), '.'.join(slot.path))}]": slot for slot in slots}


def _field_slots(field: Field) -> Iterator[Slot]:
    if field.kind != "group":
        yield Slot((field.name,), field.kind, None)
    for member in field.fields:
        yield Slot((field.name, member.name), member.kind, field)


def _ends(path: tuple[str, ...]) -> list[str]:
    return [".".join(path[start:]) for start in reversed(range(len(path)))]


def _segments(text: str) -> Iterator[tuple[str, str]]:
    """(tag, value) in the text's order, brackets in values no longer doubled."""
    tag: str | None = None
    value, start = "", 0
    for match in _BRACKET.finditer(text):
        value += text[start : match.start()]
        start = match.end()
        if match[0] == "[[":
            value += "[["
            continue
        yield from _segment(tag, value)
        tag, value = match[0], ""
    yield from _segment(tag, value + text[start:])


def _segment(tag: str | None, value: str) -> Iterator[tuple[str, str]]:
    if "[" in value.replace("[[", ""):
        raise BrokenLinearError("an open bracket that ends nowhere")
    if tag is not None:
        yield tag, value.removeprefix(" ").replace("[[", "[")
    elif value:
        raise BrokenLinearError("text before the first tag")
