"""What stands beside a score: by topic, mistakes by kind with examples, and how far a model's confidence can be trusted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medkd.quality.intervals import f1_interval
from medkd.quality.sameness import form_of
from medkd.quality.scores import Comparison, total
from medkd.quality.spoken import normal_form
from medkd.records import NOT_PROVIDED, Record, RecordSchema
from medkd.rules import Compare

_EXAMPLES = 3
_BINS = 10

KINDS = ("invented", "omitted", "wrong value", "wrong field", "not a record")
"""Kinds of mistakes: said where the reference says nothing; nothing where it says something; another value; a true value in
another field; and text that is no valid record, of which nothing else is counted."""


@dataclass(frozen=True)
class Judged:
    """One prediction beside its reference. confidence: from 0 to 1, None where the model gives none."""

    sample_id: str
    topic: str
    gold: Record
    predicted: Record | None
    comparison: Comparison
    confidence: float | None


def by_topic(judged: Sequence[Judged], schema: RecordSchema) -> list[dict[str, Any]]:
    """F1 with its interval for each topic, the worst first."""
    topics: dict[str, list[Comparison]] = defaultdict(list)
    for one in judged:
        topics[one.topic].append(one.comparison)
    rows = []
    for topic, comparisons in topics.items():
        scores = total(comparisons, schema)
        interval = f1_interval([counts_of(one) for one in comparisons])
        rows.append(
            {
                "topic": topic,
                "num_samples": len(comparisons),
                "f1": scores.micro.f1,
                "low": interval.low,
                "high": interval.high,
                "hallucinated": scores.hallucinated,
                "omitted": scores.omitted,
            }
        )
    return sorted(rows, key=lambda row: (row["f1"], row["topic"]))


def counts_of(comparison: Comparison) -> tuple[int, int, int]:
    """Matched, predicted and expected over all fields of one conversation."""
    agreement = comparison.agreement
    return agreement.matched, agreement.predicted, agreement.expected


def mistakes(judged: Sequence[Judged], schema: RecordSchema) -> list[dict[str, Any]]:
    """How often each kind of mistake is made, in which fields, with a few examples; the most frequent first.

    Examples hold values of records and belong beside the data, not into logs.
    """
    fields: dict[str, Counter[str]] = defaultdict(Counter)
    examples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in judged:
        for kind, path, expected, got in _of_one(one, schema):
            fields[kind][path] += 1
            if len(examples[kind]) < _EXAMPLES:
                examples[kind].append({"sample_id": one.sample_id, "field": path, "reference": expected, "predicted": got})
    return [
        {"kind": kind, "count": fields[kind].total(), "by_field": dict(fields[kind].most_common()), "examples": examples[kind]}
        for kind in sorted(KINDS, key=lambda kind: -fields[kind].total())
        if fields[kind]
    ]


def _of_one(one: Judged, schema: RecordSchema) -> list[tuple[str, str, str, str]]:
    """(kind, path, reference, predicted) of each mistake in one prediction."""
    if one.predicted is None:
        return [("not a record", "", "", "")]
    gold, predicted = _values(one.gold, schema), _values(one.predicted, schema)
    said_anywhere = {normal_form(value): path for path, values in gold.items() for value in values}
    found = []
    for path in schema.leaves():
        compare = schema.rules[path].compare
        missing = _less(gold.get(path, []), predicted.get(path, []), compare)
        added = _less(predicted.get(path, []), gold.get(path, []), compare)
        for value in list(added):
            if said_anywhere.get(normal_form(value), path) != path:
                found.append(("wrong field", path, "", value))
                added.remove(value)
        for expected, got in zip(missing, added, strict=False):
            found.append(("wrong value", path, expected, got))
        found += [("omitted", path, value, "") for value in missing[len(added) :]]
        found += [("invented", path, "", value) for value in added[len(missing) :]]
    return found


def _values(record: Record, schema: RecordSchema) -> dict[str, list[str]]:
    values: dict[str, list[str]] = defaultdict(list)
    for path, value in schema.values(record):
        if value != NOT_PROVIDED:
            values[path].append(value)
    return values


def _less(values: list[str], others: list[str], compare: Compare) -> list[str]:
    """The values without those that stand in the others, one for one, as they are compared."""
    left = Counter(form_of(compare, value) for value in others)
    rest = []
    for value in values:
        form = form_of(compare, value)
        if left[form]:
            left[form] -= 1
        else:
            rest.append(value)
    return rest


def calibration(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Confidence beside precision in bins of equal size; None where the model gives no confidence.

    error: the mean distance of both, weighted by conversations (expected calibration error).
    """
    known = sorted((one for one in judged if one.confidence is not None), key=lambda one: (one.confidence or 0.0, one.sample_id))
    if not known:
        return None
    bins = []
    for number in range(min(_BINS, len(known))):
        part = known[number * len(known) // min(_BINS, len(known)) : (number + 1) * len(known) // min(_BINS, len(known))]
        confidence = sum(one.confidence or 0.0 for one in part) / len(part)
        matched, predicted, _ = (sum(values) for values in zip(*(counts_of(one.comparison) for one in part), strict=True))
        bins.append(
            {"num_samples": len(part), "confidence": round(confidence, 4), "precision": round(matched / max(1, predicted), 4)}
        )
    error = sum(found["num_samples"] * abs(found["confidence"] - found["precision"]) for found in bins) / len(known)
    return {"bins": bins, "error": round(error, 4)}


def intervals(comparisons: Mapping[str, Sequence[Comparison]]) -> dict[str, dict[str, float]]:
    """The interval of each model's micro-F1."""
    found = {}
    for model, of_model in comparisons.items():
        interval = f1_interval([counts_of(one) for one in of_model])
        found[model] = {"low": interval.low, "high": interval.high}
    return found
