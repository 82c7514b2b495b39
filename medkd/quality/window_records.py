"""Records of windows: which part of a conversation's record each of its windows supports, and the windows' records as one.

Of a record's parts the merge makes the record again, as far as its values are said in windows at all. The rules of the merge:

- a text: what most windows wrote; else what the later ones did, as people correct what they said, and a diagnosis comes last;
- a list: all entries, in the order in which they were written first, each once; "none" only where there is no other;
- items: those of different windows that do not contradict each other are one, and so are those of one drug, their members
  merged as above; items of one window never are;
- NOT PROVIDED and an empty list lose against anything.

Values are the same where scores take them for the same, by each field's own rule (`quality.sameness`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from medkd.quality.grounding import supports
from medkd.quality.sameness import form_of
from medkd.records import NOT_PROVIDED, Field, Record, RecordSchema
from medkd.rules import NONE
from medkd.samples import Window

Item = dict[str, Any]
Change = Callable[[Field, str], str | None]
"""Of a field and a value that claims something the value to write instead; None: none."""


def window_records(record: Record, conversation: str, windows: Sequence[Window], schema: RecordSchema) -> list[Record]:
    """For each window the values that it supports itself, if the whole conversation supports them by one of its turns.

    The evidence that is stored with a row is by field, and a list's entries may lie in several windows: each value is looked up.
    An item stays where its drug does, or, in items without such a member, where most of what it says does; with it stays what
    nobody looks for in a conversation, which is in no part elsewhere. Numbers of turns are the window's own.
    """
    anywhere = [(path, value, set(found)) for path, value, found in supports(record, conversation, schema)]
    parts = []
    for window in windows:
        here = supports(record, window.text, schema)
        kept = [
            _number_in(window, value)
            if schema.rules[path].support == "turn"
            else value
            if found and not turns.isdisjoint(window.turns)
            else None
            for (path, value, turns), (_, _, found) in zip(anywhere, here, strict=True)
        ]
        parts.append(_part(record, iter(kept), schema))
    return parts


def with_turns_of_the_whole(record: Record, window: Window, schema: RecordSchema) -> Record:
    """A window's record with the numbers that its turns have in the conversation; what numbers no turn is left out."""

    def change(field: Field, value: str) -> str | None:
        if field.rule.support != "turn":
            return value
        known = value.isdecimal() and 0 < int(value) <= len(window.turns)
        return str(window.turns[int(value) - 1] + 1) if known else None

    return {field.name: _changed(field, record[field.name], change) for field in schema.fields}


def merge_records(records: Sequence[Record], schema: RecordSchema) -> Record:
    """One record of those of a conversation's windows, in their order; of a single one itself."""
    if len(records) == 1:
        return records[0]
    return {field.name: _merged(field, [record[field.name] for record in records]) for field in schema.fields}


def _number_in(window: Window, value: str) -> str | None:
    """The number in the window of the turn that `value` numbers in the conversation."""
    turn = int(value) - 1 if value.isdecimal() else -1
    return str(window.turns.index(turn) + 1) if turn in window.turns else None


def _part(record: Record, kept: Iterator[str | None], schema: RecordSchema) -> Record:
    """The record of the values that are kept; kept: one for each value that `supports` tells, in its order."""
    part: Record = {}
    for field in schema.fields:
        value = record[field.name]
        if field.kind == "items":
            pairs = [(item, _changed_members(field, item, _kept(kept, True))) for item in value]
            part[field.name] = [found for item, found in pairs if _stays(field, item, found)]
        else:
            part[field.name] = _changed(field, value, _kept(kept, False))
    return part


def _kept(kept: Iterator[str | None], with_item: bool) -> Change:
    def change(field: Field, value: str) -> str | None:
        if field.rule.support == "nothing":
            return value if with_item else None
        return next(kept)

    return change


def _changed(field: Field, value: Any, change: Change) -> Any:
    """The value with each of its texts changed; what is then none is NOT PROVIDED, or no entry."""
    if field.kind == "text":
        return value if value == NOT_PROVIDED else change(field, value) or NOT_PROVIDED
    if field.kind == "list":
        # What stands instead of an entry is no claim, and stays as broken as it is.
        changed = [entry if entry == NOT_PROVIDED else change(field, entry) for entry in value]
        return list(dict.fromkeys(changed_entry for changed_entry in changed if changed_entry is not None))
    if field.kind == "group":
        return _changed_members(field, value, change)
    return [_changed_members(field, item, change) for item in value]


def _changed_members(field: Field, holder: Item, change: Change) -> Item:
    return {member.name: _changed(member, holder[member.name], change) for member in field.fields}


def _stays(field: Field, item: Item, found: Item) -> bool:
    key = _key(field)
    if key and _says(item[key]):
        return _says(found[key])
    said = [member.name for member in field.fields if member.rule.support != "nothing" and _says(item[member.name])]
    return 2 * sum(_says(found[name]) for name in said) > len(said)


def _says(value: str | list[str]) -> bool:
    return value not in (NOT_PROVIDED, [])


def _key(field: Field) -> str:
    """The member that its items are told apart by, empty where the rules name none."""
    tied = (member.rule.tied_to for member in field.fields if member.rule.support != "turn")
    return next(filter(None, tied), "")


def _merged(field: Field, values: Sequence[Any]) -> Any:
    if field.kind == "text":
        return _text(field, values)
    if field.kind == "list":
        return _list(field, values)
    return _items(field, values) if field.kind == "items" else _object(field, values)


def _object(field: Field, values: Sequence[Item]) -> Item:
    return {member.name: _merged(member, [value[member.name] for value in values]) for member in field.fields}


def _text(field: Field, values: Sequence[str]) -> str:
    said = [value for value in values if value != NOT_PROVIDED]
    votes = Counter(form_of(field.rule.compare, value) for value in said)
    places = range(len(said))
    best = max(places, key=lambda place: (votes[form_of(field.rule.compare, said[place])], place), default=None)
    return NOT_PROVIDED if best is None else said[best]


def _list(field: Field, values: Sequence[Sequence[str]]) -> list[str]:
    found: dict[str, str] = {}
    for value in values:
        for entry in value:
            found.setdefault(form_of(field.rule.compare, entry), entry)
    return [entry for entry in found.values() if entry != NONE] or list(found.values())


def _items(field: Field, values: Sequence[Sequence[Item]]) -> list[Item]:
    """Each item of a window joins at most one of those before it, and no two join the same."""
    groups: list[list[Item]] = []
    for value in values:
        free, left = list(range(len(groups))), [item for item in value if any(map(_says, item.values()))]
        for same in (_agree, _of_one_key):
            waiting, left = left, []
            for item in waiting:
                place = next((place for place in free if same(field, _object(field, groups[place]), item)), None)
                if place is None:
                    left.append(item)
                else:
                    free.remove(place)
                    groups[place].append(item)
        groups += [[item] for item in left]
    return [_object(field, group) for group in groups]


def _agree(field: Field, one: Item, other: Item) -> bool:
    """Whether something is said in both, and nothing differs where both say something; numbers of turns may."""
    both = [member for member in field.fields if _says(one[member.name]) and _says(other[member.name])]
    compared = [member for member in both if member.rule.support != "turn"]
    return bool(compared) and all(_same(member, one[member.name], other[member.name]) for member in compared)


def _of_one_key(field: Field, one: Item, other: Item) -> bool:
    key = next((member for member in field.fields if member.name == _key(field)), None)
    return key is not None and _says(one[key.name]) and _same(key, one[key.name], other[key.name])


def _same(field: Field, one: str | list[str], other: str | list[str]) -> bool:
    mine, others = ([value] if isinstance(value, str) else value for value in (one, other))
    return {form_of(field.rule.compare, value) for value in mine} == {form_of(field.rule.compare, value) for value in others}
