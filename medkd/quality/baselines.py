"""What a student has to beat: a constant record, and a lexicon of the values seen in training. Neither sees a test row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from medkd.quality.spoken import normal_form, tokens
from medkd.records import NOT_PROVIDED, Field, Record, RecordSchema
from medkd.rules import NONE
from medkd.samples import canonical_json

_TRUSTED = 0.5  # a value is predicted where at least this share of the training conversations that say it also have it
_ITEM_REACH = 25  # words after an item's first member within which its other members are looked for


def constant_record(records: Iterable[Record], schema: RecordSchema) -> Record:
    """The record whose every field holds what that field holds most often; of equally frequent values the first in order."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    values: dict[str, Any] = {}
    for record in records:
        for path, value in _whole_values(schema.fields, record, ""):
            text = canonical_json(value)
            counts[path][text] += 1
            values[text] = value
    frequent = {path: values[min(found, key=lambda text: (-found[text], text))] for path, found in counts.items()}
    return _assembled(schema.fields, schema.empty(), frequent, "")


@dataclass(frozen=True)
class _Place:
    """A known value in a conversation: where its words start and end, and how training spells it."""

    start: int
    end: int
    value: str


@dataclass(frozen=True)
class _Phrases:
    """The known values of one leaf: normal form to spelling, with what makes looking them up fast."""

    spelling: dict[str, str]
    first_words: frozenset[str]
    longest: int

    @classmethod
    def of(cls, spelling: dict[str, str]) -> _Phrases:
        split = [phrase.split() for phrase in spelling]
        return cls(spelling, frozenset(words[0] for words in split), max(map(len, split), default=0))

    def places(self, words: tuple[str, ...]) -> list[_Place]:
        """The values that stand in the text, longest first, none within another."""
        places, start = [], 0
        while start < len(words):
            ends = range(min(start + self.longest, len(words)), start, -1) if words[start] in self.first_words else ()
            end = next((end for end in ends if " ".join(words[start:end]) in self.spelling), 0)
            if end:
                places.append(_Place(start, end, self.spelling[" ".join(words[start:end])]))
            start = max(end, start + 1)
        return places


class LexiconBaseline:
    """Predicts the values that it knows from training and finds word for word, longest first, in a conversation.

    A field with one value takes the one that was right most often where it was said; a list takes all that were right
    at least half the time. An item takes its other members from the words that follow its first.
    """

    def __init__(self, rows: Iterable[tuple[str, Record]], schema: RecordSchema) -> None:
        """Learn from the (conversation, record) rows of the train split, which are gone through twice."""
        self._schema = schema
        spellings = _spellings((record for _, record in rows), schema)
        self._known = {path: _Phrases.of(spelled) for path, spelled in spellings.items()}
        self._trust = self._measured(rows)

    def predict(self, conversation: str) -> Record:
        """The record that the lexicon finds; always valid."""
        words = tokens(conversation)
        found = {path: self._trusted(path, words) for path in self._known}
        return {field.name: self._field(field, field.name, found) for field in self._schema.fields}

    def _measured(self, rows: Iterable[tuple[str, Record]]) -> dict[str, dict[str, float]]:
        """By leaf and value: the share of the conversations saying the value whose record has it there."""
        said: dict[str, Counter[str]] = defaultdict(Counter)
        right: dict[str, Counter[str]] = defaultdict(Counter)
        for conversation, record in rows:
            words, true = tokens(conversation), set(self._schema.values(record))
            for path in self._known:
                for value in {place.value for place in self._known[path].places(words)}:
                    said[path][value] += 1
                    right[path][value] += (path, value) in true
        return {path: {value: right[path][value] / said[path][value] for value in said[path]} for path in self._known}

    def _trusted(self, path: str, words: tuple[str, ...]) -> list[_Place]:
        trust = self._trust[path]
        return [place for place in self._known[path].places(words) if trust.get(place.value, 0.0) >= _TRUSTED]

    def _field(self, field: Field, path: str, found: dict[str, list[_Place]]) -> Any:
        if field.kind == "text":
            trust = self._trust[path]
            return max((place.value for place in found[path]), key=lambda value: trust[value], default=NOT_PROVIDED)
        if field.kind == "list":
            values = list(dict.fromkeys(place.value for place in found[path]))
            return [value for value in values if value != NONE] or values
        if field.kind == "group":
            return {member.name: self._field(member, f"{path}.{member.name}", found) for member in field.fields}
        return self._items(field, path, found)

    def _items(self, field: Field, path: str, found: dict[str, list[_Place]]) -> list[Record]:
        """One item for each value of its first member, at the place where most of its other members follow."""
        first, *others = (f"{path}[].{member.name}" for member in field.fields)
        best: dict[str, dict[str, list[_Place]]] = {}
        starts = found[first]
        for place, following in zip(starts, [*starts[1:], None], strict=False):
            reach = min(place.end + _ITEM_REACH, following.start if following else place.end + _ITEM_REACH)
            near = {leaf: [other for other in found[leaf] if place.end <= other.start < reach][:1] for leaf in others}
            near[first] = [place]
            if sum(map(len, near.values())) > sum(map(len, best.get(place.value, {}).values())):
                best[place.value] = near
        return [
            {member.name: self._field(member, f"{path}[].{member.name}", near) for member in field.fields}
            for near in best.values()
        ]


def _spellings(records: Iterable[Record], schema: RecordSchema) -> dict[str, dict[str, str]]:
    """By leaf: each known value's normal form with its most frequent spelling."""
    counts: dict[str, dict[str, Counter[str]]] = {path: defaultdict(Counter) for path in schema.leaves()}
    for record in records:
        for path, value in schema.values(record):
            if value != NOT_PROVIDED:
                counts[path][normal_form(value)][value] += 1
    return {
        path: {form: min(found, key=lambda value: (-found[value], value)) for form, found in forms.items()}
        for path, forms in counts.items()
    }


def _whole_values(fields: tuple[Field, ...], record: Record, prefix: str) -> Iterable[tuple[str, Any]]:
    """Each text, list and list of items outside items, with its path."""
    for field in fields:
        path = prefix + field.name
        if field.kind == "group":
            yield from _whole_values(field.fields, record[field.name], f"{path}.")
        else:
            yield path, record[field.name]


def _assembled(fields: tuple[Field, ...], empty: Record, values: dict[str, Any], prefix: str) -> Record:
    assembled: Record = {}
    for field in fields:
        path = prefix + field.name
        if field.kind == "group":
            assembled[field.name] = _assembled(field.fields, empty[field.name], values, f"{path}.")
        else:
            assembled[field.name] = values.get(path, empty[field.name])
    return assembled
