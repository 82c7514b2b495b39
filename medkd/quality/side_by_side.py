"""A reference record and a prediction in rows that show where they differ, and which conversations are worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medkd.quality.sameness import form_of
from medkd.quality.scores import Comparison, Pairs, pairs
from medkd.records import NOT_PROVIDED, Field, Record, RecordSchema

Mark = Literal["same", "omitted", "added", "silent"]


@dataclass(frozen=True)
class Value:
    """One value. `same` stands on both sides, `omitted` only in the reference, `added` only in the prediction."""

    text: str
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class FieldRow:
    """One field on both sides; a line is one text or list entry, or the members of one item."""

    group: str
    name: str
    reference: tuple[tuple[Value, ...], ...]
    predicted: tuple[tuple[Value, ...], ...]


def rows(reference: Record, predicted: Record | None, schema: RecordSchema) -> tuple[FieldRow, ...]:
    """The record's fields in order; values are matched as scores match them. A prediction of None is empty everywhere."""
    there = predicted or schema.empty()
    wanted, claimed = pairs(reference, schema), pairs(there, schema)
    left, right = _Marker(wanted & claimed, "omitted", schema), _Marker(wanted & claimed, "added", schema)
    found = []
    for field in schema.fields:
        members = field.fields if field.kind == "group" else (field,)
        for member in members:
            path = f"{field.name}.{member.name}" if field.kind == "group" else field.name
            one, other = (record[field.name] if field.kind == "group" else record for record in (reference, there))
            found.append(
                FieldRow(
                    group=field.name if field.kind == "group" else "",
                    name=member.name,
                    reference=left.lines(member, path, one[member.name]),
                    predicted=right.lines(member, path, other[member.name]) if predicted is not None else (),
                )
            )
    return tuple(found)


def best_median_worst(comparisons: Sequence[tuple[str, Comparison]]) -> list[tuple[str, str]]:
    """(label, sample id) of up to three different conversations by F1, pure in the comparisons and not in their order.

    Of equally good ones, that with the most to find stands for them: an empty record is easily perfect.
    """
    ordered = sorted(comparisons, key=lambda one: (-one[1].agreement.f1, -one[1].agreement.expected, one[0]))
    ids = [sample_id for sample_id, _ in ordered]
    if len(ids) < 3:
        return list(zip(("best", "worst"), ids, strict=False))
    return [("best", ids[0]), ("median", ids[len(ids) // 2]), ("worst", ids[-1])]


class _Marker:
    """Marks the values of one side: as long as the other side has an equal one left, they are the same."""

    def __init__(self, common: Pairs, otherwise: Mark, schema: RecordSchema) -> None:
        self._rules = schema.rules
        self._common = common.copy()
        self._otherwise = otherwise

    def lines(self, field: Field, path: str, value: object) -> tuple[tuple[Value, ...], ...]:
        if isinstance(value, str):
            return ((self._value(path, value),),)
        if field.kind == "list" and isinstance(value, list):
            return tuple((self._value(path, entry),) for entry in value)
        assert isinstance(value, list)
        return tuple(self._item(field, path, item) for item in value)

    def _item(self, field: Field, path: str, item: Record) -> tuple[Value, ...]:
        return tuple(
            value
            for member in field.fields
            for line in self.lines(member, f"{path}[].{member.name}", item[member.name])
            for value in line
        )

    def _value(self, path: str, text: str) -> Value:
        if text == NOT_PROVIDED:
            return Value(text, "silent")
        pair = (path, form_of(self._rules[path].compare, text))
        if self._common[pair] > 0:
            self._common[pair] -= 1
            return Value(text, "same")
        return Value(text, self._otherwise)
