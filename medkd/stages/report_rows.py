"""The report's blocks on rows: what was generated, rejected, paid and kept, and what people said of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from medkd.quality.card import review_words
from medkd.quality.report import CallRow, Cells, DataSet, GroupRow, Money, Rejects, Reviews, TopicRow
from medkd.stages import tallies
from medkd.stages.run_files import SHARDS, RunFiles
from medkd.store import layout, manifests
from medkd.store.tables import Row

_TOKEN_KINDS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def cells(run: RunFiles) -> Cells | None:
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
    source = f"{SHARDS}/samples.parquet" + (f", {SHARDS}/manifest.json" if missing else "")
    return Cells(moods=moods, rows=tuple(sorted(found, key=lambda row: (row.total, row.topic.lower(), row.topic))), source=source)


def _order_of(words: Sequence[str]) -> Any:
    """A sort key: words in their configured order, others after them by name."""
    return lambda word: (words.index(word) if word in words else len(words), word)


def rejects(run: RunFiles) -> Rejects | None:
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
        source=f"{SHARDS}/manifest.json; each try is a row of {SHARDS}/rejected.parquet",
    )


def money(run: RunFiles) -> Money | None:
    if not run.shards:
        return None
    calls = run.table("calls.parquet", ("step", "repair", *_TOKEN_KINDS, "cost_usd"))
    steps = sorted({call["step"] for call in calls}, key=_order_of(("conversation", "extraction")))
    return Money(
        rows=tuple(_call_row(step, [call for call in calls if call["step"] == step]) for step in steps),
        spent_usd=sum(shard.money.get("spent_usd", 0.0) for shard in run.shards),
        possibly_usd=sum(shard.money.get("possibly_usd", 0.0) for shard in run.shards),
        accepted=run.count("accepted"),
        source=f"{SHARDS}/calls.parquet, {SHARDS}/manifest.json",
        groups=_groups(run),
    )


def _groups(run: RunFiles) -> tuple[GroupRow, ...]:
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


def data_set(run: RunFiles) -> DataSet | None:
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


def reviews(run: RunFiles) -> Reviews | None:
    """What people said of rows, None where nobody's judgement was taken in."""
    manifest = manifests.read(run.store, layout.REVIEW_MANIFEST)
    if manifest is None:
        return None
    files = {file.path: file for file in manifest.files}
    found = json.loads(manifests.read_verified(run.store, files[layout.REVIEW_FIGURES]))["reviews"]
    known = run.data_set.inputs.get(layout.REVIEW_MANIFEST) if run.data_set else None
    return Reviews(
        found={name: figures for name, figures in found.items() if figures["reviewers"]},
        is_applied=known == files[layout.REVIEW_OUTCOME].sha256 if run.data_set else None,
        source=layout.REVIEW_FIGURES,
    )
