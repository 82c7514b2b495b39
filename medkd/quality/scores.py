"""How well predicted records agree with reference records.

A record counts as the multiset of its (leaf path, value) pairs, values as their rule compares them (`quality.sameness`): lists
have no order, an item's members count each by itself, and NOT PROVIDED is no pair, because it claims nothing. With
matched = pairs on both sides, over all conversations:

    precision = matched / predicted      recall = matched / expected      F1 = 2 matched / (predicted + expected)

and each of them 1 where nothing was predicted and nothing expected. A prediction that is no valid record predicts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from medkd.quality.sameness import form_of
from medkd.records import NOT_PROVIDED, Record, RecordSchema

Pairs = Counter[tuple[str, str]]
"""(leaf path, value as it is compared) and how often it stands in one record."""

Compared = tuple[Record, Record | None, bool, bool]
"""Reference record, predicted record (None: not valid), whether the raw text was JSON, and whether it fit the schema."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Counts of one kind of pair, and the three ratios they give (see the module's formulas)."""

    matched: int
    predicted: int
    expected: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one model on `num_samples` conversations; shares are from 0 to 1."""

    num_samples: int
    valid_json: float
    """Share of predictions that are strict JSON."""
    valid_schema: float
    """Share of predictions that are valid records."""
    exact_match: float
    """Share of predictions that agree with their reference everywhere, NOT PROVIDED included."""
    micro: Agreement
    """All pairs of all fields together."""
    fields: dict[str, Agreement]
    """By leaf path."""
    items: dict[str, Agreement]
    """By list of items: an item counts as one, right only where all its members are."""
    hallucinated: int
    """Pairs that were predicted and are not in the reference; a wrong value counts here and as omitted."""
    omitted: int
    """Pairs of the reference that were not predicted."""
    abstention: Agreement
    """Leaves outside items that say nothing (NOT PROVIDED, or an empty list)."""
    abstention_accuracy: float
    """Share of leaves outside items where both records, or neither, say something; a prediction that is not valid is wrong."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One prediction beside its reference, in counts that add up: the unit that scores are summed (or resampled) over.

    fields and items: matched, predicted, expected by path. abstention: the same for leaves that say nothing.
    """

    fields: dict[str, tuple[int, int, int]]
    items: dict[str, tuple[int, int, int]]
    abstention: tuple[int, int, int]
    leaves_agreeing: int
    leaves: int
    exact: bool
    valid_json: bool
    valid_schema: bool

    @property
    def agreement(self) -> Agreement:
        """All pairs of this one conversation."""
        return _agreement(self.fields.values())


def score(compared: Sequence[Compared], schema: RecordSchema) -> Scores:
    """The scores of one model over all its predictions."""
    return total([compare(gold, predicted, schema, *validity) for gold, predicted, *validity in compared], schema)


def compare(
    gold: Record, predicted: Record | None, schema: RecordSchema, valid_json: bool = True, valid_schema: bool = True
) -> Comparison:
    """One prediction (None: not valid) against its reference."""
    expected, claimed = pairs(gold, schema), Counter() if predicted is None else pairs(predicted, schema)
    expected_items, claimed_items = _items(gold, schema), {} if predicted is None else _items(predicted, schema)
    silent, claimed_silent = _silent(expected, schema), _silent(claimed, schema)
    outer_leaves = [path for path in schema.leaves() if "[]." not in path]
    return Comparison(
        fields={path: _overlap(_of(expected, path), _of(claimed, path)) for path in schema.leaves()},
        items={path: _overlap(items, claimed_items.get(path, Counter())) for path, items in expected_items.items()},
        abstention=_overlap(silent, Counter() if predicted is None else claimed_silent),
        leaves_agreeing=0 if predicted is None else sum(silent[path] == claimed_silent[path] for path in outer_leaves),
        leaves=len(outer_leaves),
        exact=predicted is not None and (expected, expected_items) == (claimed, claimed_items),
        valid_json=valid_json,
        valid_schema=valid_schema,
    )


def total(comparisons: Sequence[Comparison], schema: RecordSchema) -> Scores:
    """The scores that these comparisons add up to."""
    micro = _agreement(counts for one in comparisons for counts in one.fields.values())
    item_paths = [field.name for field in schema.fields if field.kind == "items"]
    return Scores(
        num_samples=len(comparisons),
        valid_json=_share(sum(one.valid_json for one in comparisons), len(comparisons)),
        valid_schema=_share(sum(one.valid_schema for one in comparisons), len(comparisons)),
        exact_match=_share(sum(one.exact for one in comparisons), len(comparisons)),
        micro=micro,
        fields={path: _agreement(one.fields[path] for one in comparisons) for path in schema.leaves()},
        items={path: _agreement(one.items[path] for one in comparisons) for path in item_paths},
        hallucinated=micro.predicted - micro.matched,
        omitted=micro.expected - micro.matched,
        abstention=_agreement(one.abstention for one in comparisons),
        abstention_accuracy=_share(sum(one.leaves_agreeing for one in comparisons), sum(one.leaves for one in comparisons)),
    )


def pairs(record: Record, schema: RecordSchema) -> Pairs:
    """What a record claims: its (leaf path, value as it is compared) pairs, NOT PROVIDED left out."""
    rules = schema.rules
    return Counter((path, form_of(rules[path].compare, value)) for path, value in schema.values(record) if value != NOT_PROVIDED)


def _of(claims: Pairs, path: str) -> Counter[str]:
    return Counter({value: count for (where, value), count in claims.items() if where == path})


def _items(record: Record, schema: RecordSchema) -> dict[str, Counter[Any]]:
    """Each list of items as a multiset of whole items."""
    nothing = schema.empty()
    return {
        field.name: Counter(frozenset(pairs({**nothing, field.name: [item]}, schema).items()) for item in record[field.name])
        for field in schema.fields
        if field.kind == "items"
    }


def _silent(claims: Pairs, schema: RecordSchema) -> Counter[str]:
    """The leaves outside items that say nothing."""
    spoken = {path for path, _ in claims}
    return Counter(path for path in schema.leaves() if "[]." not in path and path not in spoken)


def _overlap(expected: Counter[Any], predicted: Counter[Any]) -> tuple[int, int, int]:
    return (expected & predicted).total(), predicted.total(), expected.total()


def _agreement(counts: Iterable[tuple[int, int, int]]) -> Agreement:
    matched = predicted = expected = 0
    for one in counts:
        matched, predicted, expected = matched + one[0], predicted + one[1], expected + one[2]
    nothing = predicted + expected == 0
    return Agreement(
        matched=matched,
        predicted=predicted,
        expected=expected,
        precision=1.0 if nothing else _share(matched, predicted),
        recall=1.0 if nothing else _share(matched, expected),
        f1=1.0 if nothing else 2 * matched / (predicted + expected),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
