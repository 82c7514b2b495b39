"""Stage evaluate: how well a student extracts the test split, beside what it has to beat.

Models are scored on the same conversations: the student, the same architecture untrained, a constant record and a
lexicon; beside them the teacher, where its records are not the reference. A reference record is the best that is known of a
conversation: a human's, else the simulator's gold, else the teacher's. The scores of the best kind that occurs come first; apart
from them held-out topics, other kinds of reference, answers that were cut, and conversations whose samples were rejected.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medkd.config import ScoreBar, StudentConfig, config_hash
from medkd.errors import InputError, StoppedError
from medkd.quality.bars import judge_scores
from medkd.quality.baselines import LexiconBaseline, constant_record
from medkd.quality.findings import Judged, by_topic, calibration, counts_of, intervals, mistakes
from medkd.quality.intervals import paired_f1_interval
from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.scores import Comparison, compare, total
from medkd.records import RECORD_SCHEMAS, Record, RecordSchema
from medkd.samples import conversation_sha256
from medkd.stages.handover import write_evaluation
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
# The teacher's own records are one more model where somebody else's are the reference.
TEACHER = "teacher"
# Conversations of rejected samples that are scored apart, at most: the first ones by sample id.
_MOST_REJECTED = 200
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
    bars: Sequence[ScoreBar] = (),
    stop: threading.Event,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a trained student on the test split; returns what `scores.json` says.

    gold: the simulator's records by conversation hash. bars: what the student must reach; `bars` of the answer and of the
    manifest says whether it does. Raises ConfigError where training has not finished and InputError
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
        rejected = _rejected_with_gold(store, gold or {})
        students, of_rejected = _students(folder, rows, references, rejected, seed, stop)
        predictions = {**_baselines(splits["train"], rows, schema), **students, **_teacher(rows, references, schema)}
    scores = score_sets(rows, references, predictions, schema, bars)
    if rejected:
        compared = [_comparison(reference, one, schema) for (_, reference), one in zip(rejected, of_rejected, strict=True)]
        scores["rejected_conversations"] = _apart({"student": compared}, "simulator", schema)
    counts = {**_counts(rows, references, predictions), "bars": scores["bars"]}
    summary = {"format": 1, "student": student_name, **scores, "counts": counts}
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


def _teacher(rows: Sequence[Row], references: Sequence[Reference], schema: RecordSchema) -> dict[str, list[Prediction]]:
    """The teacher's records as predictions, where none of them is its own reference; nothing otherwise."""
    if any(reference.source == TEACHER or row["reference"] != TEACHER for row, reference in zip(rows, references, strict=True)):
        return {}
    return {TEACHER: [_certain(json.loads(row["output"]), schema) for row in rows]}


def _rejected_with_gold(store: Store, gold: Mapping[str, Record]) -> list[tuple[str, Reference]]:
    """Conversations of rejected tries whose true record is known: what the teacher found hard, and no split holds."""
    if not gold:
        return []
    paths = [file.path for file in store.list_files(layout.GENERATE) if file.path.endswith("/manifest.json")]
    files = [
        file
        for path in paths
        for file in manifests.require(store, path, "generate").files
        if file.path.endswith("/rejected.parquet")
    ]
    found: dict[str, tuple[str, Reference]] = {}
    for row in tables.stream(store, files, ("sample_id", "conversation")):
        identity = conversation_sha256(row["conversation"] or "")
        if identity in gold and len(found) < _MOST_REJECTED:
            found[identity] = row["conversation"], Reference(gold[identity], "simulator")
    return list(found.values())


def _students(
    folder: Path,
    rows: Sequence[Row],
    references: Sequence[Reference],
    rejected: Sequence[tuple[str, Reference]],
    seed: int,
    stop: threading.Event,
) -> tuple[dict[str, list[Prediction]], list[Prediction]]:
    """The student's answers and those of its architecture with fresh weights; and the student's to rejected conversations."""
    from medkd.student.decode import Extractor
    from medkd.student.models import untrained

    tested = [row["input"] for row in rows]
    conversations = [*tested, *(conversation for conversation, _ in rejected)]
    trained = Extractor.load(folder)
    tokenizer = trained.tokenizer
    known = [*references, *(reference for _, reference in rejected)]
    longest = max(len(tokenizer.encode(tokenizer.linear.write(reference.record))) for reference in known)
    fresh = Extractor(untrained(folder, tokenizer.family, seed), tokenizer)
    found = {}
    for name, extractor in (("student", trained), ("untrained", fresh)):
        if stop.is_set():
            raise StoppedError("evaluation stopped; run it again")
        asked = conversations if name == "student" else tested
        extractions = extractor.extract(asked, max_answer_length=longest + SPARE_TOKENS)
        found[name] = [_prediction(extraction, tokenizer.linear.schema) for extraction in extractions]
        event("answers written", model=name, conversations=len(asked))
    of_rejected = found["student"][len(tested) :]
    found["student"] = found["student"][: len(tested)]
    return found, of_rejected


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


def score_sets(
    rows: Sequence[Row],
    references: Sequence[Reference],
    predictions: Mapping[str, Sequence[Prediction]],
    schema: RecordSchema,
    bars: Sequence[ScoreBar] = (),
) -> dict[str, Any]:
    """Scores of the best kind of reference on the usual topics; the other kinds and the held-out topics apart."""

    comparisons = {
        model: [_comparison(*pair, schema) for pair in zip(references, of_model, strict=True)]
        for model, of_model in predictions.items()
    }

    def scored(indices: list[int]) -> dict[str, Any]:
        return _apart({model: [of_model[i] for i in indices] for model, of_model in comparisons.items()}, "", schema)

    by_source: dict[str, list[int]] = {}
    held_out: list[int] = []
    for index, row in enumerate(rows):
        if row["held_out_topic"]:
            held_out.append(index)
        else:
            by_source.setdefault(references[index].source, []).append(index)
    sources = [source for source in REFERENCES if source in by_source]
    main = by_source[sources[0]] if sources else held_out
    judged = _judged(main, rows, references, predictions["student"], comparisons["student"])
    cut = [index for index in main if predictions["student"][index].truncated]
    return {
        "reference": references[main[0]].source,
        **scored(main),
        **_beside_teacher(main, comparisons, schema),
        "bars": judge_scores(bars, [comparisons["student"][index] for index in main]),
        "by_topic": by_topic(judged, schema),
        "mistakes": mistakes(judged, schema),
        "calibration": calibration(judged),
        "truncated": scored(cut) if cut else None,
        "other_references": {source: {"reference": source, **scored(by_source[source])} for source in sources[1:]},
        "held_out_topics": {"reference": references[held_out[0]].source, **scored(held_out)} if held_out else None,
    }


def _apart(comparisons: Mapping[str, Sequence[Comparison]], reference: str, schema: RecordSchema) -> dict[str, Any]:
    """Scores and their intervals of every model on one set of conversations."""
    return {
        **({"reference": reference} if reference else {}),
        "num_samples": max(len(of_model) for of_model in comparisons.values()),
        "scores": {model: asdict(total(of_model, schema)) for model, of_model in comparisons.items()},
        "intervals": intervals(comparisons),
    }


def _beside_teacher(
    indices: Sequence[int], comparisons: Mapping[str, Sequence[Comparison]], schema: RecordSchema
) -> dict[str, Any]:
    """The student's F1 as a share of its teacher's on the same conversations, and the difference with its interval."""
    if TEACHER not in comparisons:
        return {}
    student, teacher = ([comparisons[model][index] for index in indices] for model in ("student", TEACHER))
    of_student, of_teacher = (total(of_model, schema).micro.f1 for of_model in (student, teacher))
    difference = paired_f1_interval([counts_of(one) for one in student], [counts_of(one) for one in teacher])
    return {
        "beside_teacher": {
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


def _comparison(reference: Reference, prediction: Prediction, schema: RecordSchema) -> Comparison:
    return compare(
        reference.record,
        prediction.record,
        schema,
        valid_json=prediction.valid_json,
        valid_schema=prediction.record is not None,
    )


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
        for name, of_model in predictions.items()
        for row, reference, prediction in zip(rows, references, of_model, strict=True)
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
    write_evaluation(store, student_name, trained, summary)
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
