"""Stage evaluate: how well a student extracts the test split, beside what it has to beat.

Four models are scored on the same conversations: the student, the same architecture untrained, a constant record and a
lexicon. A reference record is the best that is known of a conversation: a human's, else the simulator's gold, else the
teacher's. The scores of the best kind that occurs come first, held-out topics and other kinds of reference apart.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medkd.config import StudentConfig, config_hash
from medkd.errors import InputError, StoppedError
from medkd.quality.baselines import LexiconBaseline, constant_record
from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.scores import score
from medkd.records import RECORD_SCHEMAS, Record, RecordSchema
from medkd.stages.prepare import read_splits
from medkd.stages.train import train_manifest_path
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.student.tokenizer import StudentForm
from medkd.telemetry import event

Row = dict[str, Any]

REFERENCES = ("human", "simulator", "teacher")
"""Kinds of reference, the most trusted first."""
MODELS = ("student", "untrained", "constant", "lexicon")
# An untrained model never ends its answer; it is cut a little above the longest reference.
SPARE_TOKENS = 8


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
    mean_logprob: float | None = None


def evaluate_folder(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/evaluate"


def evaluate(
    store: Store,
    *,
    student_name: str,
    student: StudentConfig,
    gold: Mapping[str, Record] | None,
    stop: threading.Event,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a trained student on the test split; returns what `scores.json` says.

    gold: the simulator's records by conversation hash. Raises ConfigError where training has not finished and InputError
    where a file differs from its manifest or nothing is left to test on.
    """
    trained = manifests.require(store, train_manifest_path(student_name), "train")
    data_set = manifests.require(store, layout.DATASET_MANIFEST, "prepare")
    splits = read_splits(store, data_set)
    rows = splits["test"]
    if not rows:
        raise InputError(f"{store.url}: the test split is empty; generate more samples")
    with tempfile.TemporaryDirectory() as scratch:
        folder = _download_model(store, trained, student_name, Path(scratch))
        schema = RECORD_SCHEMAS[StudentForm.read(folder).schema]
        references = [_reference(row, gold or {}) for row in rows]
        predictions = {
            **_baselines(splits["train"], rows, schema),
            **_students(folder, rows, references, seed, stop),
        }
    scores = _score_sets(rows, references, predictions, schema)
    summary = {"format": 1, "student": student_name, **scores, "counts": _counts(rows, references, predictions)}
    _publish(store, student_name, student, trained, data_set, summary, _prediction_rows(rows, references, predictions, schema))
    return summary


def _reference(row: Row, gold: Mapping[str, Record]) -> Reference:
    if row["gold"] or row["reference"] == "human":
        return Reference(json.loads(row["gold"] or row["output"]), "human")
    if row["conversation_sha256"] in gold:
        return Reference(gold[row["conversation_sha256"]], "simulator")
    return Reference(json.loads(row["output"]), "teacher")


def _download_model(store: Store, trained: Manifest, student_name: str, scratch: Path) -> Path:
    folder = scratch / "model"
    folder.mkdir()
    for file in trained.files:
        (folder / Path(file.path).name).write_bytes(manifests.read_verified(store, file))
    return folder


def _baselines(train: Sequence[Row], rows: Sequence[Row], schema: RecordSchema) -> dict[str, list[Prediction]]:
    known = [(row["input"], json.loads(row["output"])) for row in train]
    constant = constant_record((record for _, record in known), schema)
    lexicon = LexiconBaseline(known, schema)
    return {
        "constant": [_certain(constant, schema) for _ in rows],
        "lexicon": [_certain(lexicon.predict(row["input"]), schema) for row in rows],
    }


def _certain(record: Record, schema: RecordSchema) -> Prediction:
    return Prediction(record=record, raw_text=schema.canonical(record), valid_json=True)


def _students(
    folder: Path, rows: Sequence[Row], references: Sequence[Reference], seed: int, stop: threading.Event
) -> dict[str, list[Prediction]]:
    """The student's answers, and those of its architecture with fresh weights."""
    from medkd.student.decode import Extractor
    from medkd.student.models import untrained

    conversations = [row["input"] for row in rows]
    trained = Extractor.load(folder)
    tokenizer = trained.tokenizer
    longest = max(len(tokenizer.encode(tokenizer.linear.write(reference.record))) for reference in references)
    fresh = Extractor(untrained(folder, tokenizer.family, seed), tokenizer)
    found = {}
    for name, extractor in (("student", trained), ("untrained", fresh)):
        if stop.is_set():
            raise StoppedError("evaluation stopped; run it again")
        extractions = extractor.extract(conversations, max_answer_length=longest + SPARE_TOKENS)
        found[name] = [_prediction(extraction, tokenizer.linear.schema) for extraction in extractions]
        event("answers written", model=name, conversations=len(rows))
    return found


def _prediction(extraction: Any, schema: RecordSchema) -> Prediction:
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
        mean_logprob=extraction.mean_logprob,
    )


def _score_sets(
    rows: Sequence[Row], references: Sequence[Reference], predictions: Mapping[str, Sequence[Prediction]], schema: RecordSchema
) -> dict[str, Any]:
    """Scores of the best kind of reference on the usual topics; the other kinds and the held-out topics apart."""

    def scored(indices: list[int]) -> dict[str, Any]:
        return {name: asdict(score([_compared(references[i], predictions[name][i]) for i in indices], schema)) for name in MODELS}

    by_source: dict[str, list[int]] = {}
    held_out: list[int] = []
    for index, row in enumerate(rows):
        if row["held_out_topic"]:
            held_out.append(index)
        else:
            by_source.setdefault(references[index].source, []).append(index)
    sources = [source for source in REFERENCES if source in by_source]
    main = by_source[sources[0]] if sources else held_out
    return {
        "reference": references[main[0]].source,
        "num_samples": len(main),
        "scores": scored(main),
        "other_references": {
            source: {"num_samples": len(by_source[source]), "scores": scored(by_source[source])} for source in sources[1:]
        },
        "held_out_topics": {"num_samples": len(held_out), "scores": scored(held_out)} if held_out else None,
    }


def _compared(reference: Reference, prediction: Prediction) -> tuple[Record, Record | None, bool, bool]:
    return reference.record, prediction.record, prediction.valid_json, prediction.record is not None


def _counts(
    rows: Sequence[Row], references: Sequence[Reference], predictions: Mapping[str, Sequence[Prediction]]
) -> dict[str, Any]:
    return {
        "test": len(rows),
        "references": dict(Counter(reference.source for reference in references)),
        "truncated": {name: sum(prediction.truncated for prediction in predictions[name]) for name in MODELS},
    }


def _prediction_rows(
    rows: Sequence[Row], references: Sequence[Reference], predictions: Mapping[str, Sequence[Prediction]], schema: RecordSchema
) -> list[Row]:
    return [
        {
            "sample_id": row["sample_id"],
            "model": name,
            "raw_text": prediction.raw_text,
            "record": None if prediction.record is None else schema.canonical(prediction.record),
            "gold": schema.canonical(reference.record),
            "gold_source": reference.source,
            "valid_json": prediction.valid_json,
            "valid_schema": prediction.record is not None,
            "windows": 1,
            "truncated": prediction.truncated,
            "mean_logprob": prediction.mean_logprob,
        }
        for name in MODELS
        for row, reference, prediction in zip(rows, references, predictions[name], strict=True)
    ]


def _publish(
    store: Store,
    student_name: str,
    student: StudentConfig,
    trained: Manifest,
    data_set: Manifest,
    summary: dict[str, Any],
    predictions: list[Row],
) -> None:
    folder = evaluate_folder(student_name)
    data = (json.dumps(summary, indent=1) + "\n").encode()
    store.replace(f"{folder}/scores.json", data)
    files = (
        manifests.entry(f"{folder}/scores.json", data),
        tables.write(store, f"{folder}/predictions.parquet", predictions, tables.PREDICTION_COLUMNS),
    )
    used = [*trained.files, *(file for file in data_set.files if "/test-" in file.path)]
    manifest = Manifest(
        stage="evaluate",
        plan_hash=trained.plan_hash,
        config_hash=config_hash(student),
        inputs={file.path: file.sha256 for file in used},
        files=files,
        counts=summary["counts"],
    )
    manifests.write(store, f"{folder}/manifest.json", manifest)
