"""Looking into a run, while it goes and after: its shards, one sample with all that is known of it, lists of rows and rejects.

A shard's rows are in its tables once it has finished, and follow from its journal before that. What is asked for is read, and
nothing else: row by row, or of a journal those samples alone that have not ended. Answers hold conversations and records.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medkd.errors import InputError, UsageError
from medkd.quality.scores import compare
from medkd.quality.verdicts import verdict_line
from medkd.samples import sample_id
from medkd.stages.open_shards import endings, open_sample
from medkd.stages.opened_run import Run
from medkd.stages.sample_steps import JUDGE
from medkd.stages.sources import files_of
from medkd.store import layout, manifests, scans, tables

Row = dict[str, Any]

_ID_DIGITS = len(sample_id(0))
_MOST_NAMED = 10
_REJECTED = ("sample_id", "topic", "mood", "source_id", "variation", "attempts", "reason", "detail", "cost_usd")
_ACCEPTED = ("sample_id", "topic", "mood", "source_id", "variation", "attempts", "unsupported", "disagreement", "cost_usd")


# --- the whole run ----------------------------------------------------------------------------------------------------------


def overview(run: Run) -> dict[str, Any]:
    """Counts by shard, of the data set and of the students, as far as the run has come."""
    plan = run.planned[0] if run.planned else None
    shards = list(_shards(run))
    reasons: Counter[str] = Counter()
    for shard in shards:
        reasons.update(shard["reasons"])
    return {
        "format": 1,
        "prefix": run.store.url,
        "plan_hash": plan.hash if plan else None,
        "teacher": plan.teacher["name"] if plan else None,
        "model": plan.teacher["model"] if plan else None,
        "samples": plan.total_samples if plan else 0,
        "patient_data": run.holds_patient_data,
        "shards": shards,
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "data_set": run.data_set.counts if run.data_set else None,
        "students": [_student(run, name) for name in run.students],
    }


def _shards(run: Run) -> Iterator[dict[str, Any]]:
    paths = {layout.shard_file(shard, "progress.json"): shard for shard in range(run.num_shards) if shard not in run.finished}
    at_work = {paths[path]: json.loads(data) for path, data in run.store.read_present(paths).items()}
    for shard in range(run.num_shards):
        counts: Mapping[str, Any] = at_work.get(shard, {})
        state, money, calls = counts.get("state", "not started"), counts, counts.get("calls", 0) + counts.get("calls_resumed", 0)
        if shard in run.finished:
            counts, money, state = run.finished[shard].counts, run.finished[shard].money, "complete"
            calls = counts.get("calls", 0)
        yield {
            "shard": shard,
            "state": state,
            "samples": len(run.indices(shard)),
            **{name: counts.get(name, 0) for name in ("accepted", "rejected", "short")},
            "calls": calls,
            "spent_usd": money.get("spent_usd", 0.0),
            "reasons": counts.get("rejected_by_reason", {}),
        }


def _student(run: Run, name: str) -> dict[str, Any]:
    try:
        scores = json.loads(run.store.read(f"{layout.student_folder(name)}/evaluate/scores.json"))
    except FileNotFoundError:
        return {"student": name, "evaluated": False}
    return {
        "student": name,
        "evaluated": True,
        "f1": scores["scores"]["student"]["micro"]["f1"],
        **scores["intervals"]["student"],
        "reference": scores["reference"],
        "num_samples": scores["num_samples"],
        "verdict": verdict_line(scores["bars"]) if "bars" in scores else "",
    }


# --- one sample -------------------------------------------------------------------------------------------------------------


def find(run: Run, wanted: str) -> str:
    """The id of the sample with this index, id, beginning of an id, or id in the files that it was imported from.

    UsageError where there is none, and where there are several, naming them.
    """
    total = run.planned[0].total_samples if run.planned else 0
    if wanted.isdecimal() and (wanted == str(int(wanted)) or len(wanted) == _ID_DIGITS) and int(wanted) < total:
        return sample_id(int(wanted))
    found = _own_beginning(wanted, total)
    if not found:
        id_of_data_set = sample_id(int(wanted)) if wanted.isdecimal() and wanted == str(int(wanted)) else wanted
        found = _few(row["sample_id"] for row in _of_data_set(run, ("sample_id",), beginning={"sample_id": id_of_data_set}))
    found = found or _few(_imported_as(run, wanted))
    if len(found) == 1:
        return found[0]
    if found:
        more = " and more" if len(found) > _MOST_NAMED else ""
        raise UsageError(f"--sample: got {wanted!r}, which begins {', '.join(found[:_MOST_NAMED])}{more}; give more of it")
    there = f"the run's are {sample_id(0)} to {sample_id(total - 1)}" if total else "its samples come from other runs"
    raise UsageError(f"--sample: got {wanted!r}, no sample under {run.store.url} has this index, id or beginning of one; {there}")


def _own_beginning(wanted: str, total: int) -> list[str]:
    """Ids of the run's own samples that begin so, a few at most."""
    if not wanted.isdecimal() or len(wanted) > _ID_DIGITS:
        return []
    size = 10 ** (_ID_DIGITS - len(wanted))
    first = int(wanted) * size
    return [sample_id(index) for index in range(first, min(first + size, total, first + _MOST_NAMED + 1))]


def _few(ids: Iterator[str]) -> list[str]:
    """The first distinct ones."""
    found: dict[str, None] = {}
    for one in ids:
        found[one] = None
        if len(found) > _MOST_NAMED:
            break
    return list(found)


def _imported_as(run: Run, source_id: str) -> Iterator[str]:
    for name, schema in (("samples", tables.SAMPLE_COLUMNS), ("rejected", tables.REJECTED_COLUMNS)):
        paths = [layout.shard_file(shard, f"{name}.parquet") for shard in sorted(run.finished)]
        for row in scans.scan(run.store, paths, schema, ("sample_id",), equal={"source_id": source_id}):
            yield row["sample_id"]
    for row in _of_data_set(run, ("sample_id",), equal={"source_id": source_id}):
        yield row["sample_id"]


def sample(run: Run, wanted: str) -> dict[str, Any]:
    """All that is known of the sample with this id: row or state, rejected tries, calls, split, and what students answered."""
    made = _as_generated(run, wanted)
    data_set = _in_data_set(run, wanted)
    if made["row"] is None and data_set:
        made["row"] = data_set.pop("row", None)
        made["state"] = made["state"] or "of another run"
    if data_set:
        data_set.pop("row", None)
    return {
        "format": 1,
        "prefix": run.store.url,
        "sample_id": wanted,
        "patient_data": run.holds_patient_data,
        **made,
        "data_set": data_set,
        "predictions": list(_predictions(run, wanted)),
    }


def _as_generated(run: Run, wanted: str) -> dict[str, Any]:
    """The sample in its shard's tables or, where that is open, in its journal."""
    shard = run.shard_of(wanted)
    nothing: dict[str, Any] = {"shard": shard, "state": "", "row": None, "rejected": [], "calls": [], "next": None}
    if shard is None or run.planned is None:
        return nothing
    try:
        found = _finished_sample(run, shard, wanted) if shard in run.finished else open_sample(run, shard, wanted)
    except InputError:
        run.__dict__.pop("finished", None)
        if shard not in run.finished:
            raise
        # It ended between two looks.
        found = _finished_sample(run, shard, wanted)
    plan = run.planned[0]
    judge = ((plan.judges or {}).get("teacher") or plan.teacher)["name"]
    for call in found["calls"]:
        call["teacher"] = judge if call["step"] == JUDGE else plan.teacher["name"]
    found["calls"].sort(key=lambda call: (call["variation"], call["at"]))
    return {**nothing, **found}


def _finished_sample(run: Run, shard: int, wanted: str) -> dict[str, Any]:
    def rows(name: str, schema: Any) -> list[Row]:
        return list(scans.scan(run.store, [layout.shard_file(shard, name)], schema, equal={"sample_id": wanted}))

    accepted = rows("samples.parquet", tables.SAMPLE_COLUMNS)
    return {
        "state": "accepted" if accepted else "rejected",
        "row": accepted[0] if accepted else None,
        "rejected": rows("rejected.parquet", tables.REJECTED_COLUMNS),
        "calls": rows("calls.parquet", tables.CALL_COLUMNS),
    }


def _in_data_set(run: Run, wanted: str) -> dict[str, Any] | None:
    """The split of a sample with its row, or why it was left out; None before stage prepare has ended, or where it had no row."""
    if run.data_set is None:
        return None
    for split in layout.SPLITS:
        paths = [file.path for file in files_of(run.data_set, split)]
        for row in scans.scan(run.store, paths, tables.DATASET_COLUMNS, equal={"sample_id": wanted}):
            return {"split": split, "held_out_topic": row["held_out_topic"], "row": row}
    path = f"{layout.DATASET}/rejected.parquet"
    if any(file.path == path for file in run.data_set.files):
        for row in scans.scan(run.store, [path], tables.DUPLICATE_COLUMNS, equal={"sample_id": wanted}):
            return {"split": None, "left_out": row["reason"], **{key: row[key] for key in ("kept_sample_id", "similarity")}}
    return None


def _of_data_set(run: Run, columns: tuple[str, ...], **conditions: Any) -> Iterator[Row]:
    if run.data_set:
        paths = [file.path for split in layout.SPLITS for file in files_of(run.data_set, split)]
        yield from scans.scan(run.store, paths, tables.DATASET_COLUMNS, columns, **conditions)


def _predictions(run: Run, wanted: str) -> Iterator[dict[str, Any]]:
    """What each student, and what stands beside it, answered to the sample's conversation."""
    for student in run.students:
        folder, schema = f"{layout.student_folder(student)}/evaluate", run.schema_of(student)
        manifest = manifests.read(run.store, f"{folder}/manifest.json")
        paths = [file.path for file in manifest.files if file.path.endswith(".parquet")] if manifest else []
        for row in scans.scan(run.store, paths, tables.PREDICTION_COLUMNS, equal={"sample_id": wanted}):
            gold, record = json.loads(row["gold"]), json.loads(row["record"]) if row["record"] else None
            yield {"student": student, **row, "f1": compare(gold, record, schema).agreement.f1}


# --- lists ------------------------------------------------------------------------------------------------------------------


def rejected_tries(run: Run, *, reason: str | None = None, topic: str | None = None) -> Iterator[Row]:
    """Rejected tries in the order of shards, those of open shards included: whose, why, and at what cost."""
    equal = {name: value for name, value in (("reason", reason), ("topic", topic)) if value is not None}
    for shard in range(run.num_shards):
        for row in _rows_of_shard(run, shard, "rejected.parquet", tables.REJECTED_COLUMNS, _REJECTED, equal):
            yield {"shard": shard, **row}


def accepted_rows(run: Run, *, topic: str | None = None) -> Iterator[Row]:
    """Accepted rows in the order of shards, those of open shards included, without their texts; of the data set where a run has
    none of its own."""
    equal = {"topic": topic} if topic is not None else {}
    for shard in range(run.num_shards):
        for row in _rows_of_shard(run, shard, "samples.parquet", tables.SAMPLE_COLUMNS, _ACCEPTED, equal):
            yield {"shard": shard, **row}
    if run.num_shards == 0:
        yield from _of_data_set(run, _ACCEPTED, equal=equal)


def _rows_of_shard(
    run: Run, shard: int, table: str, schema: Any, columns: tuple[str, ...], equal: Mapping[str, str]
) -> Iterator[Row]:
    if shard in run.finished:
        yield from scans.scan(run.store, [layout.shard_file(shard, table)], schema, columns, equal=equal)
        return
    for rejected, accepted in endings(run, shard):
        for row in rejected if table == "rejected.parquet" else [accepted] if accepted else []:
            if all(row[name] == value for name, value in equal.items()):
                yield {name: row.get(name) for name in columns}
