"""A run prefix as the stages leave it, and a review of it, made of simulated encounters and without any teacher or training."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from medkd import config
from medkd.config import ScoreBar
from medkd.quality.baselines import LexiconBaseline, constant_record
from medkd.quality.score_sets import Prediction, Reference, apart, comparison, main_rows, score_sets
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record
from medkd.samples import INSTRUCTION, sample_id
from medkd.simulator.dialogue import speak
from medkd.simulator.encounters import Case, draw_facts
from medkd.stages import plan as planning
from medkd.stages import review, reviewed
from medkd.stages.answers import prediction_rows, teachers
from medkd.stages.prepare import build_data_set
from medkd.store import layout, manifests, tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.store.review_files import FilledRow
from medkd.teacher.prompts import PROMPT_VERSION
from tests.generation import settings

STUDENT = "tiny-t5"
_SHORT_CELL = {"topic": "migraine", "mood": "calm", "planned": 4, "accepted": 2, "reasons": {"refused": 8}, "of_run": 20}
REASONS = ("ungrounded", "bad_value", "wrong_shape", "not_json", "too_short", "refused")


def write_run(
    store: Store,
    *,
    num_samples: int,
    topics: list[str],
    moods: list[str],
    num_shards: int = 2,
    require_agreement: float | None = None,
    held_out: bool = True,
    rejects: bool = True,
) -> None:
    """Plan, shards and data set; `write_student` adds the rest. held_out: the first topic is only tested on. rejects: some tries
    failed a check, and a cell fell short."""
    held_out_topics = topics[:1] if held_out else []
    chance = random.Random(7)
    cells = [(topic, mood) for topic in topics for mood in moods]
    rows = [_sample(index, *cells[index * 7 % len(cells)], chance) for index in range(num_samples)]
    teacher = config.load(None).teacher("simulator")
    asked = settings(conversation_topics=topics, patient_moods=moods, held_out_topics=held_out_topics)
    plan = planning.make_plan(asked, "simulator", teacher, seed=42, total_samples=num_samples, prompt_version=PROMPT_VERSION)
    planning.publish(store, plan, teacher, num_shards=num_shards, budget_usd=None)
    for shard in range(num_shards):
        part = plan.shard_range(shard, num_shards)
        _write_shard(store, shard, plan.hash, rows[part.start : part.stop], chance, rejects)
    build_data_set(store, require_agreement=require_agreement)


def write_review(store: Store, *, num_rows: int, adjudicator: str | None = None) -> None:
    """A review that ada filled in and ben half of, who differ in some fields; both correct some. It is in the data set."""
    found, chance = review.export(store, review.Asked(num_rows=num_rows)), random.Random(5)
    filled = []
    for place, case in enumerate(found.cases):
        said = dict.fromkeys(PATIENT_RECORD.leaves(), "right")
        corrected = None
        if place % 5 == 3 and case.record:
            corrected = json.loads(json.dumps(case.record))
            corrected["patient_details"]["occupation"] = chance.choice(("painter", NOT_PROVIDED))
            said = {}
        elif chance.random() < 0.3:
            said[chance.choice(list(said))] = chance.choice(("wrong", "missing", "not said"))
        filled.append(_filled(found.identity, case.sample_id, "ada", said, corrected))
        if place % 2 == 0:
            other = {path: "missing" if chance.random() < 0.05 else verdict for path, verdict in said.items()}
            if place % 4 == 0 and other:
                del other[chance.choice(list(other))]
            filled.append(_filled(found.identity, case.sample_id, "ben", other, corrected))
    reviewed.take_in(store, filled, reviewer=None, adjudicator=adjudicator)
    asked = manifests.require(store, layout.DATASET_MANIFEST, "prepare").counts.get("require_agreement")
    build_data_set(store, require_agreement=asked)


def _filled(identity: str, sample_id: str, reviewer: str, verdicts: dict[str, str], corrected: Record | None) -> FilledRow:
    values = {"review": identity, "sample_id": sample_id, "reviewer": reviewer, "verdicts": verdicts}
    values |= {"corrected_record": corrected}
    return FilledRow(f"{reviewer}:{sample_id}", values)


def write_student(store: Store, bars: Sequence[ScoreBar] = ()) -> None:
    """Training metrics, predictions and scores of a student that makes some mistakes, judged by these bars."""
    folder, chance = layout.student_folder(STUDENT), random.Random(3)
    lines: list[dict[str, Any]] = []
    for step in range(5, 605, 5):
        loss = 0.05 + 6 * math.exp(-step / 90) + chance.uniform(-0.02, 0.06)
        lines.append({"step": step, "epoch": 1, "learning_rate": 1e-3, "loss": round(loss, 5), "seconds": 1.7})
        if step % 100 == 0:
            lines.append({"step": step, "epoch": 1, "validation_loss": round(loss + 0.06, 5)})
    store.replace(f"{folder}/train/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    done = Manifest(stage="train", plan_hash=_plan_hash(store), config_hash="", files=())
    manifests.write(store, f"{folder}/train/manifest.json", done)
    _write_evaluation(store, folder, chance, bars)


def _plan_hash(store: Store) -> str:
    return manifests.require(store, layout.PLAN_MANIFEST, "plan").plan_hash


def _sample(index: int, topic: str, mood: str, chance: random.Random) -> dict[str, Any]:
    case = Case(topic=topic, mood=mood, exchanges=chance.randint(4, 9), age=chance.randint(18, 88), sex=None, style="plain")
    spoken = speak(case, draw_facts(case, chance), chance)
    return {
        "sample_id": sample_id(index),
        "topic": topic,
        "mood": mood,
        "instruction": INSTRUCTION,
        "input": spoken.conversation,
        "output": PATIENT_RECORD.canonical(spoken.record),
        "evidence": [],
        "judge": "judge-1" if index % 3 == 0 else None,
        "disagreement": [["prescription[].dose"], []][index % 2] if index % 3 == 0 else None,
        "source": "generated",
        "reference": "teacher",
        "teacher": "simulator",
        "served_model": "clinic-1",
        "variation": 0,
        "cost_usd": 0.0004,
    }


def _write_shard(
    store: Store, shard: int, plan_hash: str, rows: list[dict[str, Any]], chance: random.Random, rejects: bool
) -> None:
    rejected = [
        {
            **{key: row[key] for key in ("sample_id", "topic", "mood", "source", "teacher")},
            "reason": REASONS[min(int(chance.expovariate(0.9)), 5)],
            "variation": 1,
            "conversation": f"Doctor: Once more.\n{row['input']}",
            "raw_text": row["output"],
        }
        for row in rows
        if chance.random() < 0.08 * rejects
    ]
    calls = [
        {
            "key": f"{row['sample_id']}-{step}",
            "sample_id": row["sample_id"],
            "step": step,
            "repair": int(chance.random() < 0.05),
            "attempts": 1,
            "prompt_tokens": chance.randint(300, 700),
            "cached_tokens": 128,
            "completion_tokens": chance.randint(100, 300),
            "reasoning_tokens": 0,
            "cost_usd": 0.0002,
            "possibly_usd": 0.0,
        }
        for row in rows
        for step in ("conversation", "extraction")
    ]
    files = [
        tables.write(store, layout.shard_file(shard, "samples.parquet"), rows, tables.SAMPLE_COLUMNS),
        tables.write(store, layout.shard_file(shard, "rejected.parquet"), rejected, tables.REJECTED_COLUMNS),
        tables.write(store, layout.shard_file(shard, "calls.parquet"), calls, tables.CALL_COLUMNS),
    ]
    reasons = dict(Counter(row["reason"] for row in rejected))
    manifest = Manifest(
        stage="generate",
        shard=shard,
        plan_hash=plan_hash,
        config_hash="",
        files=tuple(files),
        counts={
            "samples": len(rows),
            "accepted": len(rows),
            "short": 0,
            "rejected": len(rejected),
            "rejected_by_reason": reasons,
            "short_cells": [_SHORT_CELL] if shard == 0 and rejects else [],
            "groups": {
                "teacher": {"simulator": {"samples": len(rows), "accepted": len(rows), "tries": 2 * len(rows), "cost_usd": 0.3}}
            },
        },
        money={"spent_usd": 0.0002 * len(calls), "possibly_usd": 0.0004},
    )
    manifests.write(store, layout.shard_file(shard, "manifest.json"), manifest)


def _write_evaluation(store: Store, folder: str, chance: random.Random, bars: Sequence[ScoreBar]) -> None:
    data_set = manifests.require(store, layout.DATASET_MANIFEST, "prepare")
    rows = {split: tables.read(store, [file for file in data_set.files if split in file.path]) for split in ("train", "test")}
    train, test = ([(row["input"], json.loads(row["output"])) for row in rows[split]] for split in ("train", "test"))
    lexicon, constant = LexiconBaseline(train, PATIENT_RECORD), constant_record([gold for _, gold in train], PATIENT_RECORD)
    predicted: dict[str, list[Record | None]] = {
        "student": [_blurred(gold, [other for _, other in test], chance) for _, gold in test],
        "untrained": [None for _ in test],
        "constant": [constant for _ in test],
        "lexicon": [lexicon.predict(text) for text, _ in test],
        "few_shot_student": [_blurred(gold, [other for _, other in test], chance) for _, gold in test],
    }
    # Of a few conversations the simulator's record is lost, so that the teacher's own is what they are compared with.
    references = [Reference(record, "teacher" if place % 9 == 4 else "simulator") for place, (_, record) in enumerate(test)]
    answered = {
        model: [_prediction(record, row, chance) for record, row in zip(records, rows["test"], strict=True)]
        for model, records in predicted.items()
    }
    found = {**answered, **teachers(rows["test"], references, PATIENT_RECORD)}
    some = main_rows(rows["test"], references)[:5]
    asked = [_prediction(_blurred(test[place][1], [test[0][1]], chance), rows["test"][place], chance) for place in some]
    both = {"student": [answered["student"][place] for place in some], "few_shot_teacher": asked}
    compared = {
        model: [comparison(references[place], one, PATIENT_RECORD) for place, one in zip(some, of_model, strict=True)]
        for model, of_model in both.items()
    }
    truncated = sum(one.truncated for one in answered["student"])
    scores = {
        "format": 1,
        "student": STUDENT,
        **score_sets(rows["test"], references, found, PATIENT_RECORD, bars),
        "few_shot_teacher": apart(compared, "simulator", PATIENT_RECORD),
        "counts": {"truncated": {"student": truncated}},
    }
    store.replace(f"{folder}/evaluate/scores.json", json.dumps(scores).encode())
    predictions = prediction_rows(rows["test"], references, found, PATIENT_RECORD)
    predictions += prediction_rows(
        [rows["test"][place] for place in some],
        [references[place] for place in some],
        {"few_shot_teacher": asked},
        PATIENT_RECORD,
    )
    file = tables.write(store, f"{folder}/evaluate/predictions.parquet", predictions, tables.PREDICTION_COLUMNS)
    manifest = Manifest(stage="evaluate", plan_hash=_plan_hash(store), config_hash="", files=(file,))
    manifests.write(store, f"{folder}/evaluate/manifest.json", manifest)


def _prediction(record: Record | None, row: dict[str, Any], chance: random.Random) -> Prediction:
    """What is no record was cut in its middle, and a third was read in two windows."""
    text = PATIENT_RECORD.canonical(record) if record else row["output"][: len(row["output"]) // 2]
    cut, known = record is None, record is not None
    windows = 1 + (len(row["input"]) % 3 == 0)
    return Prediction(
        record=record, raw_text=text, valid_json=known, truncated=cut, windows=windows, mean_logprob=-chance.random()
    )


def _blurred(gold: Record, others: list[Record], chance: random.Random) -> Record | None:
    """A prediction as a small student makes it: some facts from somewhere else, some forgotten, rarely nothing valid."""
    if chance.random() < 0.05:
        return None
    record, other = json.loads(json.dumps(gold)), chance.choice(others)
    for group in ("patient_details", "medical_history", "current_diagnosis"):
        for leaf in record[group]:
            if chance.random() < 0.12:
                record[group][leaf] = other[group][leaf]
    for item in record["prescription"]:
        if chance.random() < 0.3:
            item["dose"] = chance.choice(("10 mg", NOT_PROVIDED))
    return record
