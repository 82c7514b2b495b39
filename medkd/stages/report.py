"""The report of a run: reads what the stages left under the prefix, as far as they got, and writes one HTML page.

Nothing is counted that is not in a file, and every block names its files. A stage that has not run leaves its block empty.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from medkd.quality.card import review_words
from medkd.quality.charts import line_chart
from medkd.quality.report import (
    REFERENCES,
    Apart,
    CallRow,
    Cells,
    DataSet,
    Evaluation,
    Example,
    Examples,
    GroupRow,
    Money,
    Rejects,
    ReportData,
    RunFacts,
    StageFigure,
    TopicRow,
    Training,
    render,
)
from medkd.quality.scores import compare
from medkd.quality.side_by_side import best_median_worst, rows
from medkd.quality.verdicts import shortfalls, verdict_line
from medkd.records import PATIENT_RECORD, RecordSchema
from medkd.samples import turns
from medkd.stages import tallies
from medkd.stages.plan import planned_schema
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.store.tables import Row
from medkd.student.tokenizer import FORM_FILE

_TOKEN_KINDS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
_SHARDS = f"{layout.GENERATE}/shard-*"


def write_report(store: Store, student: str | None) -> str:
    """Write the report of the run and of one student, None for a run without one; returns its path under the prefix."""
    data = gather(store, student, written_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    store.replace(layout.REPORT, render(data).encode())
    return layout.REPORT


def gather(store: Store, student: str | None, written_at: str) -> ReportData:
    """What the page shows, from the files that are there; InputError where a file differs from its manifest."""
    run = _Run(store, student)
    return ReportData(
        run=_facts(run, written_at),
        stages=_stage_figures(run),
        cells=_cells(run),
        rejects=_rejects(run),
        money=_money(run),
        data_set=_data_set(run),
        training=_training(run),
        evaluation=_evaluation(run),
        examples=_examples(run),
        gaps=_gaps(run),
    )


@dataclass(frozen=True)
class _Run:
    """The files of a run, each read once."""

    store: Store
    student: str | None

    @cached_property
    def plan(self) -> dict[str, Any]:
        return self.json(layout.PLAN)

    @cached_property
    def schema(self) -> RecordSchema:
        # A student that was trained on a file has no plan.
        form = {} if self.plan else self.json(self.student_file(f"tokens/tokenizer/{FORM_FILE}"))
        return planned_schema(self.plan.get("record_schema") or form.get("record_schema") or PATIENT_RECORD.name)

    @cached_property
    def shards(self) -> list[Manifest]:
        """Manifests of the shards that have finished."""
        paths = [file.path for file in self.store.list_files(layout.GENERATE) if file.path.endswith("/manifest.json")]
        return [manifest for path in paths if (manifest := manifests.read(self.store, path))]

    @cached_property
    def data_set(self) -> Manifest | None:
        return manifests.read(self.store, layout.DATASET_MANIFEST)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        return self.json(f"{layout.DATASET}/statistics.json") if self.data_set else {}

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        if self.student is None:
            return []
        return [json.loads(line) for line in self.text(self.student_file("train/metrics.jsonl")).splitlines()]

    @cached_property
    def scores(self) -> dict[str, Any]:
        return self.json(self.student_file("evaluate/scores.json")) if self.student else {}

    @cached_property
    def short_cells(self) -> list[dict[str, Any]]:
        """Cells that fell short, with the reasons, over all shards that have finished."""
        return tallies.merged_short_cells(shard.counts.get("short_cells", ()) for shard in self.shards)

    def student_file(self, name: str) -> str:
        return f"{layout.student_folder(self.student or '')}/{name}"

    def count(self, what: str) -> int:
        """A count of the shards' manifests, added up."""
        return sum(int(shard.counts.get(what, 0)) for shard in self.shards)

    def table(self, name: str, columns: Sequence[str]) -> list[Row]:
        """Columns of the finished shards' tables of that name."""
        files = [file for shard in self.shards for file in shard.files if file.path.endswith(f"/{name}")]
        return tables.read(self.store, files, columns)

    def json(self, path: str) -> dict[str, Any]:
        text = self.text(path)
        value: dict[str, Any] = json.loads(text) if text else {}
        return value

    def text(self, path: str) -> str:
        """The file's text, '' where there is no such file."""
        try:
            return self.store.read(path).decode()
        except FileNotFoundError:
            return ""


def _facts(run: _Run, written_at: str) -> RunFacts:
    teacher = run.plan.get("teacher", {})
    plan_manifest = manifests.read(run.store, layout.PLAN_MANIFEST)
    return RunFacts(
        prefix=run.store.url,
        plan_hash=plan_manifest.plan_hash if plan_manifest else "not planned yet",
        teacher=teacher.get("name", "no teacher yet"),
        model=teacher.get("model", "unknown"),
        student=run.student,
        seed=run.plan.get("seed"),
        written_at=written_at,
        source=f"{layout.PLAN}, {_SHARDS}/manifest.json, {layout.DATASET_MANIFEST}"
        + (f", {run.student_file('*')}" if run.student else ""),
    )


def _stage_figures(run: _Run) -> tuple[StageFigure, ...]:
    return (_plan_figure(run), _generate_figure(run), _prepare_figure(run), _train_figure(run), _evaluate_figure(run))


def _plan_figure(run: _Run) -> StageFigure:
    if not run.plan:
        return StageFigure(name="plan", figure="not there yet", note="", state="not yet")
    imported = run.plan.get("source")
    cells = "your own conversations" if imported else f"{len(run.plan['topics'])} topics × {len(run.plan['moods'])} moods"
    return StageFigure(name="plan", figure=f"{run.plan['total_samples']:,}", note=cells, state="done")


def _generate_figure(run: _Run) -> StageFigure:
    if not run.shards:
        return StageFigure(name="generate", figure="not there yet", note="", state="not yet")
    num_shards = run.json(layout.LAYOUT).get("num_shards", len(run.shards))
    whole = len(run.shards) == num_shards
    note = f"accepted, {len(run.shards)} of {num_shards} shards"
    return StageFigure(name="generate", figure=f"{run.count('accepted'):,}", note=note, state="done" if whole else "partly")


def _prepare_figure(run: _Run) -> StageFigure:
    if not run.data_set:
        return StageFigure(name="prepare", figure="not there yet", note="", state="not yet")
    rows_kept = sum(run.data_set.counts.get(split, 0) for split in layout.SPLITS)
    note = f"rows, {run.data_set.counts.get('duplicates', 0):,} duplicates left out"
    return StageFigure(name="prepare", figure=f"{rows_kept:,}", note=note, state="done")


def _train_figure(run: _Run) -> StageFigure:
    if not run.metrics:
        return StageFigure(name="train", figure="not there yet", note="", state="not yet")
    whole = manifests.read(run.store, run.student_file("train/manifest.json")) is not None
    steps = max(line["step"] for line in run.metrics)
    return StageFigure(
        name="train", figure=f"{steps:,}", note="steps" if whole else "steps so far", state="done" if whole else "partly"
    )


def _evaluate_figure(run: _Run) -> StageFigure:
    if not run.scores:
        return StageFigure(name="evaluate", figure="not there yet", note="", state="not yet")
    return StageFigure(name="evaluate", figure=f"{run.scores['num_samples']:,}", note="conversations scored", state="done")


def _cells(run: _Run) -> Cells | None:
    if not run.shards:
        return None
    counts = Counter(
        (row["topic"] or "no topic", row["mood"] or "no mood") for row in run.table("samples.parquet", ("topic", "mood"))
    )
    missing = {(cell["topic"], cell["mood"]): cell["planned"] - cell["accepted"] for cell in run.short_cells}
    known = [*counts, *missing]
    moods = tuple(sorted({mood for _, mood in known}, key=_order_of(run.plan.get("moods", ()))))
    held_out = run.plan.get("held_out_topics", ())
    found = [
        TopicRow(
            topic=topic,
            counts=tuple(counts[topic, mood] for mood in moods),
            missing=tuple(missing.get((topic, mood), 0) for mood in moods),
            held_out=topic in held_out,
        )
        for topic in {topic for topic, _ in known}
    ]
    source = f"{_SHARDS}/samples.parquet" + (f", {_SHARDS}/manifest.json" if missing else "")
    return Cells(moods=moods, rows=tuple(sorted(found, key=lambda row: (row.total, row.topic.lower(), row.topic))), source=source)


def _order_of(words: Sequence[str]) -> Any:
    """A sort key: words in their configured order, others after them by name."""
    return lambda word: (words.index(word) if word in words else len(words), word)


def _rejects(run: _Run) -> Rejects | None:
    if not run.shards:
        return None
    reasons: Counter[str] = Counter()
    for shard in run.shards:
        reasons.update(shard.counts.get("rejected_by_reason", {}))
    return Rejects(
        by_reason=tuple(sorted(reasons.items(), key=lambda found: (-found[1], found[0]))),
        accepted=run.count("accepted"),
        short=run.count("short"),
        short_cells=tallies.shown_cells(run.short_cells, most=20),
        source=f"{_SHARDS}/manifest.json; each try is a row of {_SHARDS}/rejected.parquet",
    )


def _money(run: _Run) -> Money | None:
    if not run.shards:
        return None
    calls = run.table("calls.parquet", ("step", "repair", *_TOKEN_KINDS, "cost_usd"))
    steps = sorted({call["step"] for call in calls}, key=_order_of(("conversation", "extraction")))
    return Money(
        rows=tuple(_call_row(step, [call for call in calls if call["step"] == step]) for step in steps),
        spent_usd=sum(shard.money.get("spent_usd", 0.0) for shard in run.shards),
        possibly_usd=sum(shard.money.get("possibly_usd", 0.0) for shard in run.shards),
        accepted=run.count("accepted"),
        source=f"{_SHARDS}/calls.parquet, {_SHARDS}/manifest.json",
        groups=_groups(run),
    )


def _groups(run: _Run) -> tuple[GroupRow, ...]:
    merged = tallies.merged_groups(shard.counts.get("groups", {}) for shard in run.shards)
    rows = [
        GroupRow(
            kind=kind,
            name=name or "none",
            tries=found["tries"],
            accepted=found["accepted"],
            acceptance=found["acceptance"],
            cost_per_accepted_usd=found["cost_per_accepted_usd"],
        )
        for kind, groups in merged.items()
        for name, found in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (tallies.GROUPS.index(row.kind), row.acceptance or 0.0, row.name)))


def _call_row(step: str, calls: list[Row]) -> CallRow:
    tokens = {kind: sum(call[kind] or 0 for call in calls) for kind in _TOKEN_KINDS}
    return CallRow(
        step=step,
        calls=len(calls),
        repairs=sum(1 for call in calls if call["repair"]),
        cost_usd=sum(call["cost_usd"] or 0.0 for call in calls),
        **tokens,
    )


def _data_set(run: _Run) -> DataSet | None:
    if not run.data_set:
        return None
    return DataSet(
        splits={split: run.data_set.counts.get(split, 0) for split in layout.SPLITS},
        duplicates=run.statistics.get("duplicates", {}),
        held_out_topics=tuple(run.statistics.get("held_out_topics", ())),
        share_stated=run.statistics.get("share_stated", {}),
        conversation_characters=run.statistics.get("conversation_characters", {}),
        data_set_hash=run.data_set.counts.get("data_set_hash", ""),
        agreement=run.statistics.get("agreement"),
        disputed=run.statistics.get("disputed", 0),
        reviewed=review_words(run.statistics),
        source=f"{layout.DATASET_MANIFEST}, {layout.DATASET}/statistics.json",
    )


def _training(run: _Run) -> Training | None:
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


def _evaluation(run: _Run) -> Evaluation | None:
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
        source=run.student_file("evaluate/scores.json"),
    )


def _scored_apart(scores: Mapping[str, Any]) -> tuple[Apart, ...]:
    sets = [
        ("held-out topics", scores.get("held_out_topics")),
        ("conversations whose samples were rejected", scores.get("rejected_conversations")),
        ("answers that were cut", scores.get("truncated")),
        ("conversations read in windows", scores.get("windowed")),
        ("conversations that a teacher was shown examples for", scores.get("few_shot_teacher")),
        *((f"rows with {_reference(source)[0]}", other) for source, other in scores.get("other_references", {}).items()),
    ]
    return tuple(
        Apart(
            title=title,
            reference=_reference(found.get("reference", scores["reference"]))[0],
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


def _examples(run: _Run) -> Examples | None:
    """The best, median and worst prediction of the student, where predictions and the data set's test rows are there."""
    manifest = manifests.read(run.store, run.student_file("evaluate/manifest.json")) if run.student else None
    files = [file for file in manifest.files if file.path.endswith("/predictions.parquet")] if manifest else []
    if not (files and run.data_set):
        return None
    columns = ("sample_id", "model", "raw_text", "record", "gold", "gold_source")
    predictions = {
        row["sample_id"]: row
        for row in tables.read(run.store, files, columns)
        if row["model"] == "student" and row["gold_source"] == run.scores.get("reference")
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


def _conversations(run: _Run, data_set: Manifest, wanted: set[str]) -> dict[str, Row]:
    files = [file for file in data_set.files if file.path.startswith(f"{layout.DATASET}/test-")]
    found = tables.read(run.store, files, ("sample_id", "topic", "mood", "input"))
    return {row["sample_id"]: row for row in found if row["sample_id"] in wanted}


def _example(run: _Run, label: str, prediction: Row, row: Row, f1: float) -> Example:
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


def _gaps(run: _Run) -> tuple[str, ...]:
    """What a reader might believe and the numbers do not show."""
    gaps = []
    if run.scores:
        gaps.append(_reference(run.scores["reference"])[1])
        gaps.append("Intervals tell chance among these conversations, not how other conversations differ from them.")
        if "rejected_conversations" not in run.scores:
            gaps.append(
                "Conversations whose samples were rejected are in no split and have no known record, so the test rows are those "
                "that passed every check."
            )
    for source, other in run.scores.get("other_references", {}).items():
        gaps.append(
            f"{other['num_samples']:,} more test rows have {_reference(source)[0]} as reference; their scores are in the file."
        )
    bars = [run.json(layout.DATASET_BARS), run.scores.get("bars", {})]
    missed = "; ".join(shortfalls(verdict) for verdict in bars if verdict and not verdict["passed"])
    if missed:
        gaps.insert(0, f"Below a bar of the configuration, so not to be handed on: {missed}.")
    cut = run.scores.get("counts", {}).get("truncated", {}).get("student", 0)
    if cut:
        gaps.append(f"{cut:,} test conversations have no whole answer: too long to read, or the answer reached its limit.")
    if run.shards:
        gaps.append(
            "A record counts as supported when its conversation says its values of the patient, by rules over the words: irony, "
            "hedges and long detours are misjudged."
        )
    missing = len(run.statistics.get("missing_shards", ()))
    if missing:
        samples = run.statistics["missing_samples"]
        gaps.append(
            f"The run went on without {missing:,} shards that failed: {samples:,} planned samples are not in the data set."
        )
    waiting = [figure.name for figure in _stage_figures(run) if figure.state != "done"]
    if waiting:
        gaps.append(f"Not finished when this page was written: {', '.join(waiting)}.")
    gaps.append("Records are checked by rules and not by a clinician. Not for clinical decisions.")
    return tuple(gap for gap in gaps if gap)


def _reference(source: str) -> tuple[str, str]:
    """What a kind of reference is called and what has to be said about it."""
    return REFERENCES.get(source, (source, ""))
