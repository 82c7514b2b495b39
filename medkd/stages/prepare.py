"""Stage prepare: from the shards' accepted rows to the data set and the student's tokens.

Verifies every shard against its manifest, drops duplicates, splits by a hash of the conversation, writes the data set with its
card and statistics, then tokenises it for one student. A data set that stands is kept: a second student only adds its tokens.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from medkd.config import StudentConfig, config_hash
from medkd.errors import InputError
from medkd.quality.duplicates import Duplicate, find_duplicates
from medkd.quality.splits import split_of
from medkd.records import NOT_PROVIDED, RecordSchema
from medkd.samples import conversation_sha256, data_set_hash, sha256_hex
from medkd.stages import gaps, standing
from medkd.stages.plan import Plan, load_plan
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import FileEntry, Manifest
from medkd.student.tokens import prepare_student_tokens
from medkd.telemetry import event

Row = dict[str, Any]
Splits = dict[str, list[Row]]

# Rows of one Parquet file: some 100 MB in memory for conversations of usual length.
ROWS_PER_FILE = 50_000


def prepare(store: Store, student_name: str, student: StudentConfig) -> Manifest:
    """Write the data set, unless it stands, and the student's tokens; returns the data set's manifest.

    Raises ConfigError where a shard has not finished, unless `gaps` names it, and InputError where a file differs from its
    manifest.
    """
    manifest = manifests.read(store, layout.DATASET_MANIFEST) or build_data_set(store)
    splits = read_splits(store, manifest)
    plan, _ = load_plan(store)
    write_tokens(store, student_name, student, splits, plan.schema, manifest)
    return manifest


def build_data_set(store: Store) -> Manifest:
    """Gather all shards into the data set; those that the run goes on without are counted in statistics and card."""
    plan, cut = load_plan(store)
    finished = standing.shard_manifests(store, range(cut.num_shards))
    missing = [shard for shard in range(cut.num_shards) if shard not in finished]
    for lost in sorted(set(missing) - gaps.recorded(store)):
        manifests.require(store, layout.shard_file(lost, "manifest.json"), f"generate, shard {lost},")
    shards = [finished[shard] for shard in sorted(finished)]
    for shard in shards:
        if shard.plan_hash != plan.hash:
            raise InputError(f"{store.url}: shard {shard.shard} was generated for another plan; generate it again")
    accepted = [row for shard in shards for row in tables.read(store, _named(shard, "samples.parquet"))]
    event("shards verified", shards=len(shards), missing=len(missing), accepted=len(accepted))
    inputs = {file.path: file.sha256 for shard in shards for file in shard.files}
    generated = {
        "short": sum(shard.counts["short"] for shard in shards),
        "rejected": sum(shard.counts["rejected"] for shard in shards),
        "missing_shards": missing,
        "missing_samples": sum(len(plan.shard_range(shard, cut.num_shards)) for shard in missing),
    }
    short_cells = _short_cells(plan, {row["sample_id"] for row in accepted})
    return write_data_set(
        store, plan.hash, plan.schema, accepted, plan.held_out_topics, inputs, {**generated, "short_cells": short_cells}
    )


def write_data_set(
    store: Store,
    plan_hash: str,
    schema: RecordSchema,
    accepted: list[Row],
    held_out_topics: tuple[str, ...],
    inputs: dict[str, str],
    provenance: dict[str, Any],
) -> Manifest:
    """Drop duplicates, split and write; the manifest last. `accepted` rows have `tables.SAMPLE_COLUMNS`."""
    if not accepted:
        raise InputError(f"{store.url}: no accepted sample; look at the reasons in {layout.GENERATE}/*/rejected.parquet")
    duplicates = find_duplicates((row["sample_id"], row["input"]) for row in accepted)
    dropped = {duplicate.sample_id for duplicate in duplicates}
    kept = sorted((row for row in accepted if row["sample_id"] not in dropped), key=lambda row: row["sample_id"])
    splits = _split(kept, held_out_topics)
    files = [file for split in layout.SPLITS for file in _write_split(store, split, splits[split])]
    files.append(
        tables.write(
            store, f"{layout.DATASET}/rejected.parquet", [_duplicate_row(found) for found in duplicates], tables.DUPLICATE_COLUMNS
        )
    )
    statistics = {
        **_statistics(splits, schema),
        **provenance,
        "duplicates": dict(Counter(duplicate.reason for duplicate in duplicates)),
        "data_set_hash": data_set_hash(kept),
        "plan_hash": plan_hash,
    }
    files.append(
        _write_text(store, f"{layout.DATASET}/statistics.json", json.dumps(statistics, indent=1, ensure_ascii=False) + "\n")
    )
    files.append(_write_text(store, f"{layout.DATASET}/README.md", _card(kept, statistics)))
    counts = {split: len(splits[split]) for split in layout.SPLITS}
    manifest = Manifest(
        stage="prepare",
        plan_hash=plan_hash,
        config_hash=sha256_hex(",".join(held_out_topics)),
        inputs=inputs,
        files=tuple(files),
        counts={**counts, "duplicates": len(duplicates), "data_set_hash": statistics["data_set_hash"]},
    )
    manifests.write(store, layout.DATASET_MANIFEST, manifest)
    event("data set written", **counts, duplicates=len(duplicates), data_set_hash=statistics["data_set_hash"][:12])
    return manifest


def read_splits(store: Store, manifest: Manifest) -> Splits:
    """The data set's rows by split, verified against its manifest."""
    return {
        split: tables.read(store, [file for file in manifest.files if file.path.startswith(f"{layout.DATASET}/{split}-")])
        for split in layout.SPLITS
    }


def tokens_manifest_path(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/tokens/manifest.json"


def write_tokens(
    store: Store, student_name: str, student: StudentConfig, splits: Splits, schema: RecordSchema, data_set: Manifest
) -> Manifest:
    """Tokenise the data set for a student, unless that was done with this configuration for this data set."""
    path = tokens_manifest_path(student_name)
    inputs = {layout.DATASET_MANIFEST: data_set.counts["data_set_hash"]}
    known = manifests.read(store, path)
    if known and known.config_hash == config_hash(student) and known.inputs == inputs:
        return known
    files, counts = prepare_student_tokens(store, student_name, student, splits, schema)
    manifest = Manifest(
        stage="tokens",
        plan_hash=data_set.plan_hash,
        config_hash=config_hash(student),
        inputs=inputs,
        files=tuple(files),
        counts=counts,
    )
    manifests.write(store, path, manifest)
    event("tokens written", student=student_name, **{key: value for key, value in counts.items() if isinstance(value, int)})
    return manifest


def _named(manifest: Manifest, name: str) -> list[FileEntry]:
    return [file for file in manifest.files if file.path.endswith(f"/{name}")]


def _split(rows: list[Row], held_out_topics: tuple[str, ...]) -> Splits:
    splits: Splits = {split: [] for split in layout.SPLITS}
    for row in rows:
        identity = conversation_sha256(row["input"])
        held_out = row["topic"] in held_out_topics
        split = split_of(identity, row["topic"], held_out_topics)
        splits[split].append({**row, "conversation_sha256": identity, "held_out_topic": held_out})
    return splits


def _write_split(store: Store, split: str, rows: list[Row]) -> list[FileEntry]:
    starts = range(0, max(1, len(rows)), ROWS_PER_FILE)
    return [
        tables.write(store, layout.dataset_part(split, number), rows[start : start + ROWS_PER_FILE], tables.DATASET_COLUMNS)
        for number, start in enumerate(starts)
    ]


def _write_text(store: Store, path: str, text: str) -> FileEntry:
    data = text.encode()
    store.replace(path, data)
    return manifests.entry(path, data)


def _duplicate_row(found: Duplicate) -> Row:
    return {
        "sample_id": found.sample_id,
        "reason": found.reason,
        "kept_sample_id": found.kept_sample_id,
        "similarity": found.similarity,
    }


def _short_cells(plan: Plan, accepted: set[str]) -> list[dict[str, Any]]:
    """Cells with fewer accepted samples than planned."""
    planned: Counter[tuple[str, str]] = Counter()
    got: Counter[tuple[str, str]] = Counter()
    for index in range(plan.total_samples if plan.source is None else 0):
        spec = plan.spec(index, 0)
        planned[spec.topic, spec.mood] += 1
        got[spec.topic, spec.mood] += spec.sample_id in accepted
    return [
        {"topic": cell[0], "mood": cell[1], "planned": planned[cell], "accepted": got[cell]}
        for cell in planned
        if got[cell] < planned[cell]
    ]


def _statistics(splits: Splits, schema: RecordSchema) -> dict[str, Any]:
    rows = [row for split in layout.SPLITS for row in splits[split]]
    stated: dict[str, int] = defaultdict(int)
    for row in rows:
        paths = {path for path, value in schema.values(json.loads(row["output"])) if value != NOT_PROVIDED}
        for path in paths:
            stated[path] += 1
    return {
        "format": 1,
        "rows": {split: len(splits[split]) for split in layout.SPLITS},
        "held_out_topics": sorted({row["topic"] for row in rows if row["held_out_topic"]}),
        "by_topic": dict(sorted(Counter(row["topic"] for row in rows).items())),
        "by_mood": dict(sorted(Counter(row["mood"] for row in rows).items())),
        "by_reference": dict(sorted(Counter(row["reference"] for row in rows).items())),
        "share_stated": {path: round(stated[path] / len(rows), 4) for path in schema.leaves()},
        "conversation_characters": _quantiles([len(row["input"]) for row in rows]),
        "record_characters": _quantiles([len(row["output"]) for row in rows]),
    }


def _quantiles(values: list[int]) -> dict[str, int]:
    ordered = sorted(values)
    return {
        name: ordered[int(share * (len(ordered) - 1))]
        for name, share in (("min", 0.0), ("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    }


def _card(rows: list[Row], statistics: dict[str, Any]) -> str:
    """The data set card: YAML header that Hugging Face reads, then provenance and limits in words."""
    splits = "\n".join(f"  - split: {split}\n    path: {split}-*.parquet" for split in layout.SPLITS)
    teachers = ", ".join(sorted({str(row.get("served_model") or row["teacher"]) for row in rows}))
    counts = ", ".join(f"{count:,} {split}" for split, count in statistics["rows"].items())
    missing = len(statistics.get("missing_shards", ()))
    gap = f"- Missing: {missing:,} shards with {statistics['missing_samples']:,} planned samples.\n" if missing else ""
    return f"""---
configs:
- config_name: default
  data_files:
{splits}
task_categories: [text-generation]
language: [en]
---
# Doctor-patient conversations and their structured records

{len(rows):,} rows ({counts}); one row is `instruction`, `input` (the conversation) and `output` (the record as JSON).

- Teacher: {teachers}. The terms of the teacher's provider apply to these rows.
- References: {", ".join(f"{count:,} written by {who}" for who, count in statistics["by_reference"].items())}.
- Left out: {sum(statistics["duplicates"].values()):,} duplicates; before that {statistics.get("rejected", 0):,} failed a check.
{gap}- Held-out topics (test only): {", ".join(statistics["held_out_topics"]) or "none"}.
- Data set hash: `{statistics["data_set_hash"]}`; plan hash: `{statistics["plan_hash"]}`.

Known limits: generated conversations are not real encounters, records are checked for support by the conversation and not by a
clinician, and agreement with the teacher is not accuracy. Not for clinical decisions.
"""
