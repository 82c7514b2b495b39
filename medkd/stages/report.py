"""The report of a run: reads what the stages left under the prefix, as far as they got, and writes one HTML page.

Nothing is counted that is not in a file, and every block names its files. A stage that has not run leaves its block empty.
"""

from __future__ import annotations

from datetime import UTC, datetime

from medkd.quality.report import ReportData, RunFacts, StageFigure, render
from medkd.quality.verdicts import shortfalls
from medkd.stages.report_rows import cells, data_set, money, rejects, reviews
from medkd.stages.report_student import evaluation, examples, reference_words, training
from medkd.stages.run_files import SHARDS, RunFiles
from medkd.store import layout, manifests
from medkd.store.files import Store


def write_report(store: Store, student: str | None) -> str:
    """Write the report of the run and of one student, None for a run without one; returns its path under the prefix."""
    data = gather(store, student, written_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    store.replace(layout.REPORT, render(data).encode())
    return layout.REPORT


def gather(store: Store, student: str | None, written_at: str) -> ReportData:
    """What the page shows, from the files that are there; InputError where a file differs from its manifest."""
    run = RunFiles(store, student)
    return ReportData(
        run=_facts(run, written_at),
        stages=_stage_figures(run),
        cells=cells(run),
        rejects=rejects(run),
        money=money(run),
        data_set=data_set(run),
        reviews=reviews(run),
        training=training(run),
        evaluation=evaluation(run),
        examples=examples(run),
        gaps=_gaps(run),
    )


def _facts(run: RunFiles, written_at: str) -> RunFacts:
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
        source=f"{layout.PLAN}, {SHARDS}/manifest.json, {layout.DATASET_MANIFEST}"
        + (f", {run.student_file('*')}" if run.student else ""),
    )


def _stage_figures(run: RunFiles) -> tuple[StageFigure, ...]:
    return (_plan_figure(run), _generate_figure(run), _prepare_figure(run), _train_figure(run), _evaluate_figure(run))


def _plan_figure(run: RunFiles) -> StageFigure:
    if not run.plan:
        return StageFigure(name="plan", figure="not there yet", note="", state="not yet")
    imported = run.plan.get("source")
    cells = "your own conversations" if imported else f"{len(run.plan['topics'])} topics × {len(run.plan['moods'])} moods"
    return StageFigure(name="plan", figure=f"{run.plan['total_samples']:,}", note=cells, state="done")


def _generate_figure(run: RunFiles) -> StageFigure:
    if not run.shards:
        return StageFigure(name="generate", figure="not there yet", note="", state="not yet")
    num_shards = run.json(layout.LAYOUT).get("num_shards", len(run.shards))
    whole = len(run.shards) == num_shards
    note = f"accepted, {len(run.shards)} of {num_shards} shards"
    return StageFigure(name="generate", figure=f"{run.count('accepted'):,}", note=note, state="done" if whole else "partly")


def _prepare_figure(run: RunFiles) -> StageFigure:
    if not run.data_set:
        return StageFigure(name="prepare", figure="not there yet", note="", state="not yet")
    rows_kept = sum(run.data_set.counts.get(split, 0) for split in layout.SPLITS)
    note = f"rows, {run.data_set.counts.get('duplicates', 0):,} duplicates left out"
    return StageFigure(name="prepare", figure=f"{rows_kept:,}", note=note, state="done")


def _train_figure(run: RunFiles) -> StageFigure:
    if not run.metrics:
        return StageFigure(name="train", figure="not there yet", note="", state="not yet")
    whole = manifests.read(run.store, run.student_file("train/manifest.json")) is not None
    steps = max(line["step"] for line in run.metrics)
    return StageFigure(
        name="train", figure=f"{steps:,}", note="steps" if whole else "steps so far", state="done" if whole else "partly"
    )


def _evaluate_figure(run: RunFiles) -> StageFigure:
    if not run.scores:
        return StageFigure(name="evaluate", figure="not there yet", note="", state="not yet")
    return StageFigure(name="evaluate", figure=f"{run.scores['num_samples']:,}", note="conversations scored", state="done")


def _gaps(run: RunFiles) -> tuple[str, ...]:
    """What a reader might believe and the numbers do not show."""
    gaps = []
    if run.scores:
        gaps.append(reference_words(run.scores["reference"])[1])
        gaps.append("Intervals tell chance among these conversations, not how other conversations differ from them.")
        if "rejected_conversations" not in run.scores:
            gaps.append(
                "Conversations whose samples were rejected are in no split and have no known record, so the test rows are those "
                "that passed every check."
            )
    for source, other in run.scores.get("other_references", {}).items():
        gaps.append(
            f"{other['num_samples']:,} more test rows have {reference_words(source)[0]} as reference; their scores are in the "
            "file."
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
