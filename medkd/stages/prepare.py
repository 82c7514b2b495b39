"""Stage prepare: from the shards' accepted rows to the data set and the student's tokens.

Verifies every shard against its manifest, drops duplicates, splits by a hash of the conversation, writes the data set with its
card and statistics, then tokenises it for one student. A data set that stands is kept: a second student only adds its tokens.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medkd.config import DataSetBars, StudentConfig, config_hash
from medkd.errors import BelowBarError, InputError
from medkd.quality.bars import judge_data_set
from medkd.quality.card import data_set_card
from medkd.quality.duplicates import DuplicateFinder
from medkd.quality.kept_rows import KeptTexts
from medkd.quality.splits import Split, split_of
from medkd.quality.statistics import Statistics
from medkd.quality.verdicts import shortfalls
from medkd.quality.window_records import window_records
from medkd.records import RecordSchema
from medkd.samples import DataSetHasher, conversation_sha256, sha256_hex
from medkd.stages import gaps, reviewed, standing, tallies
from medkd.stages.lent import LentDataSet, all_rows, check_same, check_schemas
from medkd.stages.plan import load_plan
from medkd.stages.sources import Shards, Source, files_of
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import FileEntry, Manifest
from medkd.student.tokens import prepare_student_tokens
from medkd.telemetry import event

Row = dict[str, Any]
Splits = dict[str, list[Row]]

# Rows of one Parquet file: some 20 MB compressed for conversations of usual length.
ROWS_PER_FILE = 50_000
_ROWS_BETWEEN_EVENTS = 100_000
NO_BARS = DataSetBars()
TRAINED_ON = ("sample_id", "input", "output")


def prepare(
    store: Store,
    student_name: str,
    student: StudentConfig,
    lent: Sequence[LentDataSet] = (),
    bars: DataSetBars = NO_BARS,
    require_agreement: float | None = None,
    take_review: bool = False,
) -> Manifest:
    """Write the data set, unless it stands, and the student's tokens; returns the data set's manifest.

    require_agreement: share of the fields on which a row's second extraction has to agree, else the row is not trained on; a
    data set made with another one is made again.
    take_review: make a data set again that was made before people said what they have said by now; a new one knows it anyway.
    bars: what the data set must reach; BelowBarError, with no tokens written, where it does not.
    lent: data sets of other runs whose rows belong to it. Raises ConfigError where a shard has not finished, unless `gaps` names
    it, or where the data set that stands was made from other ones, and InputError where a file differs from its manifest.
    """
    manifest = manifests.read(store, layout.DATASET_MANIFEST)
    if manifest and lent:
        check_same(store, manifest, lent)
    if manifest and manifest.counts.get("require_agreement") != require_agreement:
        manifest = None
    if manifest and not _knows_review(store, manifest):
        event("a review is not applied to this data set", applied_now=take_review)
        manifest = None if take_review else manifest
    plan, _ = load_plan(store)
    check_schemas(lent, plan.schema)
    manifest = manifest or build_data_set(store, lent, require_agreement)
    manifest = check_bars(store, manifest, bars)
    write_tokens(store, student_name, student, stream_splits(store, manifest, TRAINED_ON), plan.schema, manifest)
    return manifest


def _knows_review(store: Store, data_set: Manifest) -> bool:
    """Whether a data set was made with what people have said by now."""
    plan, _ = load_plan(store)
    outcome = reviewed.find_outcome(store, plan.hash, plan.schema)
    return (outcome.hash if outcome else None) == data_set.inputs.get(layout.REVIEW_MANIFEST)


def check_bars(store: Store, data_set: Manifest, bars: DataSetBars) -> Manifest:
    """Write the verdict on a data set beside it and on its card; BelowBarError where it misses a bar.

    Returns the data set's manifest with the card as it is now: other bars change nothing else.
    """
    file = next(file for file in data_set.files if file.path.endswith("/statistics.json"))
    statistics = json.loads(manifests.read_verified(store, file))
    verdict = judge_data_set(bars, statistics)
    if verdict["checks"]:
        asked = {"asked": bars.model_dump(mode="json")}
        _write_text(store, layout.DATASET_BARS, json.dumps({**verdict, **asked}, indent=1) + "\n")
    else:
        store.delete(layout.DATASET_BARS)
    path = f"{layout.DATASET}/README.md"
    text = data_set_card(statistics, verdict)
    card = manifests.entry(path, text.encode())
    if card not in data_set.files:
        _write_text(store, path, text)
        data_set = replace(data_set, files=tuple(card if file.path == path else file for file in data_set.files))
        manifests.write(store, layout.DATASET_MANIFEST, data_set)
    if not verdict["passed"]:
        raise BelowBarError(f"{store.url}/{layout.DATASET}: below a bar of the configuration: {shortfalls(verdict)}")
    return data_set


def build_data_set(store: Store, lent: Sequence[LentDataSet] = (), require_agreement: float | None = None) -> Manifest:
    """Gather all shards and what other runs lend into the data set; shards that the run goes on without are counted in statistics
    and card."""
    plan, cut = load_plan(store)
    finished = standing.shard_manifests(store, range(cut.num_shards))
    missing = [shard for shard in range(cut.num_shards) if shard not in finished]
    for lost in sorted(set(missing) - gaps.recorded(store)):
        manifests.require(store, layout.shard_file(lost, "manifest.json"), f"generate, shard {lost},")
    shards = [finished[shard] for shard in sorted(finished)]
    for shard in shards:
        if shard.plan_hash != plan.hash:
            raise InputError(f"{store.url}: shard {shard.shard} was generated for another plan; generate it again")
    accepted = Shards(store, shards)
    num_accepted = sum(shard.counts["accepted"] for shard in shards)
    event("shards found", shards=len(shards), missing=len(missing), accepted=num_accepted)
    inputs = {file.path: file.sha256 for shard in shards for file in shard.files}
    inputs |= {one.origin: one.hash for one in lent}
    generated = {
        "short": sum(shard.counts["short"] for shard in shards),
        "accepted": num_accepted,
        "rejected": sum(shard.counts["rejected"] for shard in shards),
        "missing_shards": missing,
        "missing_samples": sum(len(plan.shard_range(shard, cut.num_shards)) for shard in missing),
        "runs": [{"data_set_hash": one.hash, "rows": one.num_rows} for one in sorted(lent, key=lambda one: one.hash)],
        "short_cells": tallies.merged_short_cells(
            [
                *(shard.counts.get("short_cells", ()) for shard in shards),
                *(tallies.lost_cells(plan, plan.shard_range(shard, cut.num_shards)) for shard in missing),
            ]
        ),
        "acceptance": tallies.merged_groups(shard.counts.get("groups", {}) for shard in shards),
    }
    held_out = tuple(dict.fromkeys([*plan.held_out_topics, *(topic for one in lent for topic in one.held_out_topics)]))
    outcome = reviewed.find_outcome(store, plan.hash, plan.schema)
    own: Source = outcome.applied(accepted, held_out, plan.prompt_version) if outcome else accepted
    if outcome:
        inputs[layout.REVIEW_MANIFEST] = outcome.hash
        generated["rejects_admitted"] = outcome.num_admitted
    rows = all_rows(own if shards else None, lent)
    return write_data_set(store, plan.hash, plan.schema, rows, held_out, inputs, generated, require_agreement)


def write_data_set(
    store: Store,
    plan_hash: str,
    schema: RecordSchema,
    accepted: Source,
    held_out_topics: tuple[str, ...],
    inputs: dict[str, str],
    provenance: dict[str, Any],
    require_agreement: float | None = None,
) -> Manifest:
    """Drop duplicates and what is disputed, split and write; the manifest last. `accepted` rows have `tables.SAMPLE_COLUMNS`.

    The rows are read twice and are never all in memory; some 1,100 bytes a row lie on this machine's disk meanwhile.
    """
    rejected = tables.PartWriter(store, lambda number: f"{layout.DATASET}/rejected.parquet", tables.DUPLICATE_COLUMNS, None)
    left_out, duplicates = _find_duplicates(store, accepted, held_out_topics, rejected)
    writers = {split: _part_writer(store, split) for split in layout.SPLITS}
    statistics, hasher, disputed, wrong = Statistics(schema), DataSetHasher(), 0, 0
    for number, row in enumerate(accepted.rows()):
        if not left_out[number]:
            identity, split, held_out = _split(row, held_out_topics)
            if row.get("review") == reviewed.LEFT_OUT:
                wrong += 1
                rejected.add({"sample_id": row["sample_id"], "reason": reviewed.LEFT_OUT})
                continue
            agreement = _agreement(row, schema)
            # What is tested on stays: a test without the doubtful rows would flatter.
            if require_agreement is not None and agreement < require_agreement and split != "test":
                disputed += 1
                rejected.add({"sample_id": row["sample_id"], "reason": "disputed", "similarity": round(agreement, 4)})
                continue
            hasher.add(row)
            statistics.add(row, split, held_out)
            writers[split].add({**row, "conversation_sha256": identity, "held_out_topic": held_out})
    files = [file for split in layout.SPLITS for file in writers[split].close()]
    files += rejected.close()
    summary = {
        **statistics.summary(),
        **provenance,
        "duplicates": dict(sorted(duplicates.items())),
        "disputed": disputed,
        **({"judged_wrong": wrong} if wrong else {}),
        "require_agreement": require_agreement,
        "data_set_hash": hasher.hexdigest(),
        "plan_hash": plan_hash,
    }
    files.append(
        _write_text(store, f"{layout.DATASET}/statistics.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    )
    files.append(_write_text(store, f"{layout.DATASET}/README.md", data_set_card(summary)))
    asked = {} if require_agreement is None else {"require_agreement": require_agreement, "disputed": disputed}
    counts = {**summary["rows"], "duplicates": duplicates.total()}
    manifest = Manifest(
        stage="prepare",
        plan_hash=plan_hash,
        config_hash=sha256_hex(",".join(held_out_topics)),
        inputs=inputs,
        files=tuple(files),
        counts={**counts, **asked, "data_set_hash": summary["data_set_hash"]},
    )
    manifests.write(store, layout.DATASET_MANIFEST, manifest)
    event("data set written", **counts, data_set_hash=summary["data_set_hash"][:12])
    return manifest


def _find_duplicates(
    store: Store, accepted: Source, held_out_topics: tuple[str, ...], writer: tables.PartWriter
) -> tuple[NDArray[np.bool_], Counter[str]]:
    """Of each row whether to leave it out, and how many are, by reason; `writer` gets the table that says why."""
    with tempfile.TemporaryDirectory() as scratch:
        finder, ids = DuplicateFinder(Path(scratch)), KeptTexts(Path(scratch))
        last, number = "", -1
        for number, row in enumerate(accepted.rows(("sample_id", "topic", "input"))):
            if row["sample_id"] <= last:
                raise InputError(f"{store.url}: sample {row['sample_id']} follows {last}; samples must come in the order of ids")
            last = row["sample_id"]
            identity, split, _ = _split(row, held_out_topics)
            finder.add(row["input"], identity, split)
            ids.add(last)
            if number and number % _ROWS_BETWEEN_EVENTS == 0:
                event("looking for duplicates", rows=number)
        if number < 0:
            raise InputError(f"{store.url}: no accepted sample; look at the reasons in {layout.GENERATE}/*/rejected.parquet")
        found, reasons = finder.find(), Counter[str]()
        for one in found:
            reasons[one.reason] += 1
            kept = {"kept_sample_id": ids[one.kept_row], "similarity": one.similarity}
            writer.add({"sample_id": ids[one.row], "reason": one.reason, **kept})
        ids.close()
    return found.is_left_out, reasons


@dataclass(frozen=True)
class SplitRows(Collection[Row]):
    """The rows of one split, read anew at each pass and never all in memory."""

    store: Store
    files: tuple[FileEntry, ...]
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[Row]:
        return tables.stream(self.store, self.files, self.columns)

    def __len__(self) -> int:
        return sum(file.rows or 0 for file in self.files)

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)


def stream_splits(store: Store, manifest: Manifest, columns: tuple[str, ...]) -> dict[str, SplitRows]:
    """The data set's rows by split, verified against its manifest at each pass."""
    return {split: SplitRows(store, tuple(files_of(manifest, split)), columns) for split in layout.SPLITS}


def read_splits(store: Store, manifest: Manifest) -> Splits:
    """The data set's rows by split, verified against its manifest."""
    return {split: tables.read(store, files_of(manifest, split)) for split in layout.SPLITS}


def tokens_manifest_path(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/tokens/manifest.json"


def write_tokens(
    store: Store,
    student_name: str,
    student: StudentConfig,
    splits: Mapping[str, Collection[Row]],
    schema: RecordSchema,
    data_set: Manifest,
) -> Manifest:
    """Tokenise the data set for a student, unless that was done with this configuration for this data set."""
    path = tokens_manifest_path(student_name)
    inputs = {layout.DATASET_MANIFEST: data_set.counts["data_set_hash"]}
    known = manifests.read(store, path)
    if known and known.config_hash == config_hash(student) and known.inputs == inputs:
        return known
    parts = partial(window_records, schema=schema)
    files, counts = prepare_student_tokens(store, student_name, student, splits, schema, parts)
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


def _split(row: Row, held_out_topics: tuple[str, ...]) -> tuple[str, Split, bool]:
    """The identity of the row's conversation, its split, and whether its topic is only tested on."""
    identity = conversation_sha256(row["input"])
    return identity, split_of(identity, row["topic"], held_out_topics), row["topic"] in held_out_topics


def _agreement(row: Row, schema: RecordSchema) -> float:
    """The share of the record's fields on which its second extraction agrees; 1 where there is none, or a person has judged."""
    return 1.0 if row.get("review") else 1 - len(row.get("disagreement") or ()) / len(schema.leaves())


def _part_writer(store: Store, split: str) -> tables.PartWriter:
    return tables.PartWriter(store, lambda number: layout.dataset_part(split, number), tables.DATASET_COLUMNS, ROWS_PER_FILE)


def _write_text(store: Store, path: str, text: str) -> FileEntry:
    data = text.encode()
    store.replace(path, data)
    return manifests.entry(path, data)
