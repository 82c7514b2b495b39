"""Who answers when a student is scored: the student, the same architecture untrained, two baselines, the teacher."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medkd.errors import StoppedError
from medkd.quality.baselines import LexiconBaseline, constant_record
from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.score_sets import TEACHER, Prediction, Reference
from medkd.records import Record, RecordSchema
from medkd.stages.windowed import read_in_windows
from medkd.telemetry import event

if TYPE_CHECKING:
    from medkd.student.decode import Extraction, Extractor
    from medkd.student.tokenizer import StudentTokenizer

Row = Mapping[str, Any]

# An untrained model never ends its answer; it is cut a little above the longest reference.
_SPARE_TOKENS = 8


def baselines(
    train: Iterable[tuple[str, Record]], conversations: Sequence[str], schema: RecordSchema
) -> dict[str, list[Prediction]]:
    """The answers of a constant record and of a lexicon, both learned from `train`, which is gone through several times."""
    constant = constant_record((record for _, record in train), schema)
    lexicon = LexiconBaseline(train, schema)
    return {
        "constant": [certain(constant, schema) for _ in conversations],
        "lexicon": [certain(lexicon.predict(conversation), schema) for conversation in conversations],
    }


def teachers(rows: Sequence[Row], references: Sequence[Reference], schema: RecordSchema) -> dict[str, list[Prediction | None]]:
    """The teacher's records as predictions, None where a record is its own reference or somebody else's; nothing without any."""
    found = [
        certain(json.loads(row["output"]), schema) if row["reference"] == TEACHER and reference.source != TEACHER else None
        for row, reference in zip(rows, references, strict=True)
    ]
    return {TEACHER: found} if any(found) else {}


def certain(record: Record, schema: RecordSchema) -> Prediction:
    """A valid record as somebody's answer."""
    return Prediction(record=record, raw_text=schema.canonical(record), valid_json=True)


def answer_limit(tokenizer: StudentTokenizer, records: Iterable[Record]) -> int:
    """Tokens of an answer that leave room for each of these records."""
    return max(len(tokenizer.encode(tokenizer.linear.write(record))) for record in records) + _SPARE_TOKENS


def asked(
    extractor: Extractor, conversations: Sequence[str], *, name: str, most_tokens: int | None, stop: threading.Event
) -> list[Prediction]:
    """A student's answers of at most so many tokens, None: its own limit; StoppedError after `stop` was set."""

    def on_batch(size: int) -> None:
        if stop.is_set():
            raise StoppedError("evaluation stopped; run it again")

    on_batch(0)
    extractions = read_in_windows(extractor, conversations, max_answer_length=most_tokens, on_batch=on_batch)
    event("answers written", model=name, conversations=len(conversations))
    return [prediction(extraction, extractor.tokenizer.linear.schema) for extraction in extractions]


def prediction(extraction: Extraction, schema: RecordSchema) -> Prediction:
    """An answer with its record, None where the record is not valid."""
    record = extraction.record
    if record is not None:
        try:
            record = parse_record(schema.canonical(record), schema)
        except InvalidRecord:
            record = None
    return Prediction(
        record=record,
        raw_text=extraction.raw_text,
        valid_json=extraction.record is not None,
        truncated=extraction.truncated,
        windows=extraction.windows,
        mean_logprob=extraction.mean_logprob,
    )


def prediction_rows(
    rows: Sequence[Row],
    references: Sequence[Reference],
    predictions: Mapping[str, Sequence[Prediction | None]],
    schema: RecordSchema,
) -> list[dict[str, Any]]:
    """The answers that there are as rows of `tables.PREDICTION_COLUMNS`, model by model."""
    return [
        {
            "sample_id": row["sample_id"],
            "model": name,
            "raw_text": found.raw_text,
            "record": None if found.record is None else schema.canonical(found.record),
            "gold": schema.canonical(reference.record),
            "gold_source": reference.source,
            "valid_json": found.valid_json,
            "valid_schema": found.record is not None,
            "windows": found.windows,
            "truncated": found.truncated,
            "mean_logprob": found.mean_logprob,
        }
        for name, of_model in predictions.items()
        for row, reference, found in zip(rows, references, of_model, strict=True)
        if found is not None
    ]
