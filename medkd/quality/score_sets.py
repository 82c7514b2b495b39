"""Scores of several models on one set of conversations, whose reference records are of several kinds.

The best kind of reference that occurs comes first; apart from it held-out topics, other kinds of reference, answers that
were cut and conversations that were read in windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medkd.config import ScoreBar
from medkd.quality.bars import judge_scores
from medkd.quality.findings import Judged, by_topic, calibration, counts_of, intervals, mistakes
from medkd.quality.intervals import paired_f1_interval
from medkd.quality.scores import Comparison, compare, total
from medkd.records import Record, RecordSchema
from medkd.samples import REFERENCES

Row = Mapping[str, Any]

TEACHER = "teacher"
"""The teacher's own records are one more model where somebody else's are the reference."""
MIXED = "mixed"
"""The reference of conversations whose best known records are of several kinds."""


@dataclass(frozen=True)
class Reference:
    """A record to compare with, and whose it is."""

    record: Record
    source: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One model's answer to one test row."""

    record: Record | None
    raw_text: str
    valid_json: bool
    truncated: bool = False
    """Whether the answer, or that to one of the windows, is not whole."""
    windows: int = 1
    """Parts that the conversation was read in."""
    mean_logprob: float | None = None


def score_sets(
    rows: Sequence[Row],
    references: Sequence[Reference],
    predictions: Mapping[str, Sequence[Prediction | None]],
    schema: RecordSchema,
    bars: Sequence[ScoreBar] = (),
) -> dict[str, Any]:
    """Scores of the best kind of reference on the usual topics; the other kinds and the held-out topics apart.

    predictions: by model, of each row; the student's and the baselines' are whole, others may lack some (None), and are scored
    where they lack none.
    """

    comparisons = {
        model: [
            None if prediction is None else comparison(reference, prediction, schema)
            for reference, prediction in zip(references, of_model, strict=True)
        ]
        for model, of_model in predictions.items()
    }
    students = [prediction for prediction in predictions["student"] if prediction]
    of_student = [one for one in comparisons["student"] if one]

    def scored(indices: list[int]) -> dict[str, Any]:
        found = {model: [one for i in indices if (one := of_model[i])] for model, of_model in comparisons.items()}
        return apart({model: of_set for model, of_set in found.items() if len(of_set) == len(indices)}, "", schema)

    by_source, held_out = _by_source(rows, references)
    sources = [source for source in REFERENCES if source in by_source]
    main = main_rows(rows, references)
    judged = _judged(main, rows, references, students, of_student)
    cut = [index for index in main if students[index].truncated]
    windowed = [index for index in main if students[index].windows > 1]
    return {
        "reference": _kind(references, main),
        **scored(main),
        **_beside_teacher(main, comparisons, schema),
        "bars": judge_scores(bars, [of_student[index] for index in main]),
        "by_topic": by_topic(judged, schema),
        "mistakes": mistakes(judged, schema),
        "calibration": calibration(judged),
        "truncated": scored(cut) if cut else None,
        "windowed": scored(windowed) if windowed else None,
        "other_references": {source: {"reference": source, **scored(by_source[source])} for source in sources[1:]},
        "held_out_topics": {"reference": _kind(references, held_out), **scored(held_out)} if held_out else None,
    }


def main_rows(rows: Sequence[Row], references: Sequence[Reference]) -> list[int]:
    """Positions of the rows whose scores come first: with the best kind of reference, on the usual topics where there are any."""
    by_source, held_out = _by_source(rows, references)
    return next((by_source[source] for source in REFERENCES if source in by_source), held_out)


def _kind(references: Sequence[Reference], indices: Sequence[int]) -> str:
    """Whose the reference records of these rows are."""
    kinds = {references[index].source for index in indices}
    return kinds.pop() if len(kinds) == 1 else MIXED


def _by_source(rows: Sequence[Row], references: Sequence[Reference]) -> tuple[dict[str, list[int]], list[int]]:
    """Positions of rows on the usual topics by their kind of reference, and of those on held-out topics."""
    by_source: dict[str, list[int]] = {}
    held_out: list[int] = []
    for index, row in enumerate(rows):
        if row["held_out_topic"]:
            held_out.append(index)
        else:
            by_source.setdefault(references[index].source, []).append(index)
    return by_source, held_out


def apart(comparisons: Mapping[str, Sequence[Comparison]], reference: str, schema: RecordSchema) -> dict[str, Any]:
    """Scores and their intervals of every model on one set of conversations."""
    return {
        **({"reference": reference} if reference else {}),
        "num_samples": max(len(of_model) for of_model in comparisons.values()),
        "scores": {model: asdict(total(of_model, schema)) for model, of_model in comparisons.items()},
        "intervals": intervals(comparisons),
    }


def _beside_teacher(
    indices: Sequence[int], comparisons: Mapping[str, Sequence[Comparison | None]], schema: RecordSchema
) -> dict[str, Any]:
    """The student's F1 as a share of its teacher's on those conversations to which there is a record of the teacher's, and the
    difference with its interval."""
    teachers = comparisons.get(TEACHER) or [None] * len(comparisons["student"])
    pairs = [(comparisons["student"][index], teachers[index]) for index in indices]
    student = [one for one, other in pairs if one and other]
    teacher = [other for one, other in pairs if one and other]
    if not student:
        return {}
    of_student, of_teacher = (total(of_model, schema).micro.f1 for of_model in (student, teacher))
    difference = paired_f1_interval([counts_of(one) for one in student], [counts_of(one) for one in teacher])
    return {
        "beside_teacher": {
            "num_samples": len(student),
            "share": of_student / of_teacher if of_teacher else None,
            "difference": of_student - of_teacher,
            "low": difference.low,
            "high": difference.high,
        }
    }


def _judged(
    indices: Sequence[int],
    rows: Sequence[Row],
    references: Sequence[Reference],
    predictions: Sequence[Prediction],
    comparisons: Sequence[Comparison],
) -> list[Judged]:
    return [
        Judged(
            sample_id=rows[index]["sample_id"],
            topic=rows[index]["topic"] or "no topic",
            gold=references[index].record,
            predicted=predictions[index].record,
            comparison=comparisons[index],
            confidence=_confidence(predictions[index]),
        )
        for index in indices
    ]


def _confidence(prediction: Prediction) -> float | None:
    return None if prediction.mean_logprob is None else math.exp(prediction.mean_logprob)


def comparison(reference: Reference, prediction: Prediction, schema: RecordSchema) -> Comparison:
    return compare(
        reference.record,
        prediction.record,
        schema,
        valid_json=prediction.valid_json,
        valid_schema=prediction.record is not None,
    )
