"""A student on conversations from elsewhere whose records are known: a set of its own, scored and written beside nothing else.

students/<name>/evaluate/<set>/{scores.json,predictions.parquet,manifest.json}   or any other folder

The run's own evaluation, its verdict and its model card stay as they are.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from medkd.errors import InputError, UsageError
from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.score_sets import Reference, score_sets
from medkd.records import Record, RecordSchema
from medkd.samples import conversation_sha256, data_set_hash
from medkd.stages import answers
from medkd.stages.evaluate import DECODING, KnownRecords, evaluate_folder
from medkd.stages.prepare import stream_splits
from medkd.store import layout, manifests, tables
from medkd.store.conversations import ImportedRow
from medkd.store.files import Store
from medkd.store.gold_files import Gold
from medkd.store.manifests import Manifest

if TYPE_CHECKING:
    from medkd.student.decode import Extractor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OWN_FILES = ("scores.json", "predictions.parquet", "rejected.parquet", "manifest.json")


@dataclass(frozen=True, kw_only=True)
class ScoredSet:
    """Conversations with their reference records, and how many rows of the files have none that can be used, by reason."""

    name: str
    rows: list[dict[str, Any]]
    references: list[Reference]
    left_out: Counter[str]

    @property
    def hash(self) -> str:
        """SHA-256 of the conversations and their references, whatever their order."""
        return data_set_hash(self.rows)


def set_name(patterns: list[str], given: str | None) -> str:
    """What the set is called: as given, or as its first file is; UsageError where that cannot be a folder of its own."""
    name = given or PurePosixPath(patterns[0].partition("::")[0].rstrip("/")).name.split(".")[0]
    name = name if given else re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "conversations"
    if not _NAME.fullmatch(name) or name in _OWN_FILES:
        raise UsageError(f"--set-name: got {name!r}, expected letters, digits, dots, - and _; it names the folder of the scores")
    return name


def read_set(name: str, rows: Iterable[ImportedRow], gold: Gold, source: str, schema: RecordSchema) -> ScoredSet:
    """The rows whose record is known, from their own column or from `gold`; InputError where there is none.

    source: whose the records are, for example `human`.
    """
    found = ScoredSet(name=name, rows=[], references=[], left_out=Counter())
    problem = ""
    for row in rows:
        identity = conversation_sha256(row.conversation)
        try:
            record = None if row.problem else _known(row, gold.of(identity, row.source_id), schema)
            reason = "unusable_row" if row.problem else "no_gold"
            problem = problem or row.problem or ""
        except InvalidRecord as error:
            record, reason = None, "invalid_gold"
            problem = problem or f"{row.place}: {error.problem}"
        if record is None:
            found.left_out[reason] += 1
            continue
        known = schema.canonical(record)
        about = {"topic": row.topic or None, "mood": None, "instruction": "", "input": row.conversation, "output": known}
        found.rows.append({"sample_id": row.source_id, "conversation_sha256": identity, "held_out_topic": False, **about})
        found.references.append(Reference(record, source))
    if not found.rows:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in found.left_out.items()) or "no rows"
        raise InputError(
            f"--conversations: no conversation with a known record ({counts}){problem and f'; {problem}'}. "
            "--gold names the column that holds it, or a file of {conversation_sha256 or id, record}"
        )
    return found


def _known(row: ImportedRow, separate: Record | None, schema: RecordSchema) -> Record | None:
    text = row.gold if row.gold is not None else separate and json.dumps(separate)
    return parse_record(text, schema) if text else None


def evaluate_set(
    extractor: Extractor, found: ScoredSet, *, student_name: str, run: Store | None, stop: threading.Event
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What `scores.json` says of the student on the set, and the rows of `predictions.parquet`.

    run: where the data set lies from which the baselines learn; None: there are no baselines. Raises InputError where a file
    there differs from its manifest and StoppedError after `stop` was set.
    """
    schema = extractor.tokenizer.linear.schema
    conversations = [row["input"] for row in found.rows]
    predictions = {"student": answers.asked(extractor, conversations, name="student", most_tokens=None, stop=stop)}
    data_set = manifests.read(run, layout.DATASET_MANIFEST) if run else None
    if run and data_set:
        predictions |= answers.baselines(KnownRecords.of(run, data_set), conversations, schema)
    scores = score_sets(found.rows, found.references, predictions, schema)
    # Bars are about the run's own test rows; an empty verdict would read as one that was passed.
    scores.pop("bars")
    counts = {
        "conversations": len(found.rows),
        "left_out": dict(found.left_out),
        "seen_in_training": _seen_in_training(run, data_set, found) if run and data_set else None,
        "truncated": sum(one.truncated for one in predictions["student"]),
        "windowed": sum(one.windows > 1 for one in predictions["student"]),
    }
    summary = {"format": 1, "set": found.name, "set_hash": found.hash, "student": student_name}
    summary |= {"decoding": DECODING[extractor.constrained], **scores, "counts": counts}
    return summary, answers.prediction_rows(found.rows, found.references, predictions, schema)


def _seen_in_training(run: Store, data_set: Manifest, found: ScoredSet) -> int:
    """Conversations of the set that the student was trained or chosen on."""
    identities = {row["conversation_sha256"] for row in found.rows}
    splits = stream_splits(run, data_set, ("conversation_sha256",))
    known = {row["conversation_sha256"] for split in ("train", "validation") for row in splits[split]} & identities
    return sum(row["conversation_sha256"] in known for row in found.rows)


def write_set(
    store: Store, folder: str, summary: Mapping[str, Any], predictions: list[dict[str, Any]], inputs: Mapping[str, str]
) -> str:
    """Write scores and predictions into the folder, the manifest last; returns the path of the scores."""
    head = f"{folder}/" if folder else ""
    data = (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode()
    store.replace(f"{head}scores.json", data)
    files = (
        manifests.entry(f"{head}scores.json", data),
        tables.write(store, f"{head}predictions.parquet", predictions, tables.PREDICTION_COLUMNS),
    )
    manifest = Manifest(
        stage="evaluate",
        plan_hash="",
        config_hash="",
        inputs={**inputs, f"set {summary['set']}": summary["set_hash"], "decoding": summary["decoding"]},
        files=files,
        counts=dict(summary["counts"]),
    )
    manifests.write(store, f"{head}manifest.json", manifest)
    return f"{head}scores.json"


def set_folder(student_name: str, name: str) -> str:
    return f"{evaluate_folder(student_name)}/{name}"
