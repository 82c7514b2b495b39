"""Two runs, or two students of one run, beside each other: plan, data, acceptance, cost, scores on what both were tested on.

Conversations are paired by their text, for equal ids of two runs are different conversations. What only one student has answered,
and what has different reference records, is counted and left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medkd.errors import ConfigError, InputError, UsageError
from medkd.quality.differences import Pair, compare_students
from medkd.quality.score_sets import Prediction, Reference, comparison
from medkd.records import RecordSchema
from medkd.samples import REFERENCES, canonical_json
from medkd.stages.evaluate import evaluate_folder
from medkd.stages.external import set_folder
from medkd.stages.opened_run import Run
from medkd.stages.prepare import stream_splits
from medkd.store import layout, manifests, tables
from medkd.store.manifests import Manifest
from medkd.student.tokenizer import FORM_FILE

Row = dict[str, Any]

_TESTED = ("sample_id", "topic", "conversation_sha256", "held_out_topic")
_ANSWER = ("sample_id", "model", "record", "gold", "gold_source", "valid_json")


@dataclass(frozen=True)
class Side:
    """One of the two: a run and, where it is scored, a student of it."""

    run: Run
    student: str | None

    @property
    def name(self) -> str:
        return f"{self.run.store.url}#{self.student}" if self.student else self.run.store.url


def side_of(run: Run, student: str | None, set_name: str | None = None) -> Side:
    """The run with the student asked for or its only one, None where none was evaluated.

    set_name: evaluated on this set of conversations from elsewhere; then there has to be a student. ConfigError where the student
    asked for was not evaluated, UsageError where several were and none was asked for.
    """
    evaluated = [name for name in run.students if run.store.exists(_scored_manifest(name, set_name))]
    if set_name is not None and (student not in evaluated if student else not evaluated):
        who = f"{run.store.url}#{student}" if student else f"a student of {run.store.url}"
        there = f"students scored on it are {', '.join(evaluated)}" if evaluated else "medkd evaluate --conversations does that"
        raise ConfigError(f"--set: {who} was not scored on {set_name!r}; {there}")
    if student is None:
        if len(evaluated) > 1:
            raise UsageError(f"{run.store.url}: has students {', '.join(evaluated)}; say which, {run.store.url}#{evaluated[0]}")
        return Side(run, evaluated[0] if evaluated else None)
    if student not in evaluated:
        there = f"evaluated are {', '.join(evaluated)}" if evaluated else "stage evaluate has not finished there"
        raise ConfigError(f"{run.store.url}: student {student!r} has no scores; {there}")
    return Side(run, student)


def _scored_manifest(student: str, set_name: str | None) -> str:
    return f"{set_folder(student, set_name) if set_name else evaluate_folder(student)}/manifest.json"


def difference(first: Side, second: Side, set_name: str | None = None) -> dict[str, Any]:
    """All that differs between the two; `scores` is None where one of them has no evaluated student.

    set_name: scores on this set of conversations from elsewhere, which both have, instead of those on their test rows.

    InputError where both have scores and no conversation in common, or a file is not as its manifest says; ConfigError where
    they answer in different record schemas.
    """
    same_run = first.run.store.url == second.run.store.url
    return {
        "format": 1,
        "first": first.name,
        "second": second.name,
        "plan": [] if same_run else _differing(_plan(first.run), _plan(second.run)),
        "student": [
            row
            for row in _differing(_student(first), _student(second))
            # Of two architectures each has sizes that the other does not know.
            if not (row["name"].startswith("config.") and None in (row["first"], row["second"]))
        ],
        "generation": [_generation(first.run), *([] if same_run else [_generation(second.run)])],
        "scores": _scores(first, second, set_name) if first.student and second.student else None,
    }


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "first": one.get(name), "second": other.get(name)}
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]


def _plan(run: Run) -> dict[str, Any]:
    """The plan in names that lie flat, and the data set that came of it."""
    flat: dict[str, Any] = {}
    if run.planned:
        plan, cut = run.planned
        for name, value in plan.as_json().items():
            flat |= {f"{name}.{key}": member for key, member in value.items()} if isinstance(value, dict) else {name: value}
        flat["num_shards"] = cut.num_shards
        # Files are many; what they hold shows in the data set.
        flat.pop("source.files", None)
    if run.data_set:
        counts = run.data_set.counts
        flat |= {f"data_set.{name}": counts.get(name) for name in ("data_set_hash", *layout.SPLITS, "duplicates")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def _student(side: Side) -> dict[str, Any]:
    """What is written down of a student: name, form, architecture, how it was trained."""
    if side.student is None:
        return {}
    folder, store = layout.student_folder(side.student), side.run.store
    found: dict[str, Any] = {"name": side.student}
    for name in (FORM_FILE, "config.json"):
        try:
            raw = json.loads(store.read(f"{folder}/model/{name}"))
        except FileNotFoundError:
            continue
        found |= {
            f"{name.removesuffix('.json')}.{key}": value for key, value in raw.items() if not isinstance(value, dict | list)
        }
    trained = manifests.read(store, f"{folder}/train/manifest.json")
    if trained:
        found |= {"config_hash": trained.config_hash, **{f"train.{key}": value for key, value in trained.counts.items()}}
    return found


def _generation(run: Run) -> dict[str, Any]:
    """Accepted rows of all tries, and what one cost, over the shards that have ended."""
    shards = run.finished.values()
    accepted, rejected = (sum(one.counts[name] for one in shards) for name in ("accepted", "rejected"))
    spent = sum(one.money.get("spent_usd", 0.0) for one in shards)
    return {
        "prefix": run.store.url,
        "shards": len(run.finished),
        "num_shards": run.num_shards,
        "accepted": accepted,
        "rejected": rejected,
        "acceptance": accepted / (accepted + rejected) if accepted + rejected else None,
        "spent_usd": spent,
        "cost_per_accepted_usd": spent / accepted if accepted else None,
    }


# --- scores -----------------------------------------------------------------------------------------------------------------


def _scores(first: Side, second: Side, set_name: str | None) -> dict[str, Any]:
    schema = _schema(first, second)
    repeated = 0
    if set_name is None:
        one, other = _answers(first), _answers(second)
    else:
        one, other, repeated = _answers_on_set(first, second, set_name)
    shared = [text for text in one if text in other]
    if not shared:
        raise InputError(
            f"{first.name} and {second.name}: were tested on {len(one):,} and {len(other):,} conversations and share none; "
            "compare students of one data set (--dataset-from), or both on one set (evaluate --conversations, then --set NAME)"
        )
    left_out = Counter({"answered by a alone": len(one) - len(shared), "answered by b alone": len(other) - len(shared)})
    left_out["with an id that several conversations have"] = repeated
    by_source: dict[str, list[Pair]] = {}
    held_out: list[Pair] = []
    for text in shared:
        a, b = one[text], other[text]
        if (a["gold_source"], canonical_json(json.loads(a["gold"]))) != (b["gold_source"], canonical_json(json.loads(b["gold"]))):
            left_out["compared with different references"] += 1
            continue
        pair = Pair(topic=a["topic"], first=_compared(a, schema), second=_compared(b, schema))
        if a["held_out_topic"] or b["held_out_topic"]:
            held_out.append(pair)
        else:
            by_source.setdefault(a["gold_source"], []).append(pair)
    sources = [source for source in REFERENCES if source in by_source]
    if not sources and not held_out:
        raise InputError(f"{first.name} and {second.name}: share {len(shared):,} conversations, none with the same reference")
    for source in sources[1:]:
        left_out[f"with another kind of reference, {source}"] = len(by_source[source])
    usual = by_source[sources[0]] if sources else []
    return {
        "set": set_name,
        "reference": sources[0] if sources else None,
        "tested": [len(one), len(other)],
        "decoding": [_decoding(side, set_name) for side in (first, second)],
        "left_out": {why: count for why, count in left_out.items() if count},
        "usual_topics": compare_students(usual, schema) if usual else None,
        "held_out_topics": compare_students(held_out, schema) if held_out else None,
    }


def _schema(first: Side, second: Side) -> RecordSchema:
    one, other = first.run.schema_of(str(first.student)), second.run.schema_of(str(second.student))
    if one != other:
        names = [f"{schema.name} {schema.version}" for schema in (one, other)]
        raise ConfigError(f"{first.name} and {second.name}: answer in different record schemas, {names[0]} and {names[1]}")
    return one


def _answers(side: Side) -> dict[str, Row]:
    """The student's answers to its test rows by the hash of the conversation."""
    store = side.run.store
    scored = manifests.require(store, f"{evaluate_folder(str(side.student))}/manifest.json", "evaluate")
    files = [file for file in scored.files if file.path.endswith("/predictions.parquet")]
    tested = {row["sample_id"]: row for row in _tested(side.run)}
    found: dict[str, Row] = {}
    for row in tables.stream(store, files, _ANSWER):
        if row["model"] != "student":
            continue
        if row["sample_id"] not in tested:
            raise InputError(f"{side.name}: was scored on another data set than the one there; evaluate it again")
        found[tested[row["sample_id"]]["conversation_sha256"]] = {**row, **tested[row["sample_id"]]}
    return found


def _answers_on_set(first: Side, second: Side, set_name: str) -> tuple[dict[str, Row], dict[str, Row], int]:
    """Both students' answers to a set from elsewhere by the ids of its conversations, and how many have no id of their own."""
    found: list[dict[str, Row]] = []
    hashes: list[list[str]] = []
    for side in (first, second):
        scored = manifests.require(side.run.store, _scored_manifest(str(side.student), set_name), "evaluate --conversations")
        hashes.append([value for name, value in scored.inputs.items() if name.startswith("set ")])
        files = [file for file in scored.files if file.path.endswith("/predictions.parquet")]
        rows = [row for row in tables.stream(side.run.store, files, _ANSWER) if row["model"] == "student"]
        times = Counter(row["sample_id"] for row in rows)
        alone = [row for row in rows if times[row["sample_id"]] == 1]
        found.append({row["sample_id"]: {**row, "topic": "no topic", "held_out_topic": False} for row in alone})
        repeated = len(rows) - len(alone)
    if hashes[0] != hashes[1]:
        raise InputError(
            f"--set: {set_name!r} of {first.name} and of {second.name} hold other conversations, ids or records; evaluate both "
            "on the same files, with --id-column where these lie in different folders"
        )
    return found[0], found[1], repeated


def _decoding(side: Side, set_name: str | None) -> str:
    """How the student wrote its answers, `free` or `constrained`."""
    return manifests.require(side.run.store, _scored_manifest(str(side.student), set_name), "evaluate").inputs.get(
        "decoding", "free"
    )


def _tested(run: Run) -> Iterator[Row]:
    data_set: Manifest = manifests.require(run.store, layout.DATASET_MANIFEST, "prepare")
    yield from stream_splits(run.store, data_set, _TESTED)["test"]


def _compared(row: Row, schema: RecordSchema) -> Any:
    record = json.loads(row["record"]) if row["record"] else None
    prediction = Prediction(record=record, raw_text="", valid_json=row["valid_json"])
    return comparison(Reference(json.loads(row["gold"]), row["gold_source"]), prediction, schema)
