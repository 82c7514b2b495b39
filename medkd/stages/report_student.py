"""The report's blocks on a student: its training, its scores and its answers to three conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medkd.quality.charts import line_chart
from medkd.quality.report import REFERENCES, Apart, Evaluation, Example, Examples, Training
from medkd.quality.score_sets import MIXED
from medkd.quality.scores import compare
from medkd.quality.side_by_side import best_median_worst, rows
from medkd.quality.verdicts import decoding_line, verdict_line
from medkd.samples import turns
from medkd.stages.run_files import RunFiles
from medkd.store import layout, manifests, tables
from medkd.store.manifests import Manifest
from medkd.store.tables import Row


def training(run: RunFiles) -> Training | None:
    series = {
        name: [(line["step"], line[key]) for line in run.metrics if line.get(key) is not None]
        for name, key in (("train", "loss"), ("validation", "validation_loss"))
    }
    chart = line_chart(series)
    if chart is None:
        return None
    seconds = [line["seconds"] for line in run.metrics if "seconds" in line]
    return Training(
        chart=chart,
        steps=max(line["step"] for line in run.metrics),
        seconds=sum(seconds) if seconds else None,
        source=run.student_file("train/metrics.jsonl"),
    )


def evaluation(run: RunFiles) -> Evaluation | None:
    if not run.scores:
        return None
    held_out = run.scores.get("held_out_topics") or {}
    return Evaluation(
        reference=run.scores["reference"],
        num_samples=run.scores["num_samples"],
        models=run.scores["scores"],
        held_out=held_out.get("scores"),
        num_held_out=held_out.get("num_samples", 0),
        intervals=run.scores.get("intervals", {}),
        apart=_scored_apart(run.scores),
        beside_teacher=run.scores.get("beside_teacher"),
        topics=run.scores.get("by_topic", ()),
        mistakes=run.scores.get("mistakes", ()),
        calibration=run.scores.get("calibration"),
        verdict=verdict_line(run.scores["bars"]) if run.scores.get("bars") else "",
        decoding=decoding_line(run.scores),
        source=run.student_file("evaluate/scores.json"),
    )


def _scored_apart(scores: Mapping[str, Any]) -> tuple[Apart, ...]:
    sets = [
        ("held-out topics", scores.get("held_out_topics")),
        ("conversations whose samples were rejected", scores.get("rejected_conversations")),
        ("answers that were cut", scores.get("truncated")),
        ("conversations read in windows", scores.get("windowed")),
        ("conversations that a teacher was shown examples for", scores.get("few_shot_teacher")),
        *((f"rows with {reference_words(source)[0]}", other) for source, other in scores.get("other_references", {}).items()),
    ]
    return tuple(
        Apart(
            title=title,
            reference=reference_words(found.get("reference", scores["reference"]))[0],
            num_samples=found["num_samples"],
            f1=found["scores"][model]["micro"]["f1"],
            model=model,
            **found["intervals"][model],
        )
        for title, found in sets
        if found and "intervals" in found
        for model in ("student", "few_shot_teacher")
        if model in found["scores"]
    )


def examples(run: RunFiles) -> Examples | None:
    """The best, median and worst prediction of the student, where predictions and the data set's test rows are there."""
    manifest = manifests.read(run.store, run.student_file("evaluate/manifest.json")) if run.student else None
    files = [file for file in manifest.files if file.path.endswith("/predictions.parquet")] if manifest else []
    if not (files and run.data_set):
        return None
    columns = ("sample_id", "model", "raw_text", "record", "gold", "gold_source")
    predictions = {
        row["sample_id"]: row
        for row in tables.read(run.store, files, columns)
        if row["model"] == "student" and run.scores.get("reference") in (row["gold_source"], MIXED)
    }
    compared = [(sample_id, compare(json.loads(row["gold"]), _record(row), run.schema)) for sample_id, row in predictions.items()]
    chosen = best_median_worst(compared)
    conversations = _conversations(run, run.data_set, {sample_id for _, sample_id in chosen})
    f1 = {sample_id: one.agreement.f1 for sample_id, one in compared}
    return Examples(
        examples=tuple(
            _example(run, label, predictions[sample_id], conversations[sample_id], f1[sample_id])
            for label, sample_id in chosen
            if sample_id in conversations
        ),
        source=f"{files[0].path}, {layout.DATASET}/test-*.parquet",
    )


def _record(prediction: Row) -> dict[str, Any] | None:
    record: dict[str, Any] | None = json.loads(prediction["record"]) if prediction["record"] else None
    return record


def _conversations(run: RunFiles, data_set: Manifest, wanted: set[str]) -> dict[str, Row]:
    files = [file for file in data_set.files if file.path.startswith(f"{layout.DATASET}/test-")]
    found = tables.read(run.store, files, ("sample_id", "topic", "mood", "input"))
    return {row["sample_id"]: row for row in found if row["sample_id"] in wanted}


def _example(run: RunFiles, label: str, prediction: Row, row: Row, f1: float) -> Example:
    record = _record(prediction)
    return Example(
        label=label,
        sample_id=row["sample_id"],
        topic=row["topic"] or "no topic",
        mood=row["mood"] or "",
        f1=f1,
        invalid_text=None if record else prediction["raw_text"] or "",
        turns=tuple(turns(row["input"])),
        rows=rows(json.loads(prediction["gold"]), record, run.schema),
    )


def reference_words(source: str) -> tuple[str, str]:
    """What a kind of reference is called and what has to be said about it."""
    return REFERENCES.get(source, (source, ""))
