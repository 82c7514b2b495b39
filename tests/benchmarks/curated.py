"""What curation is worth: students trained on curated and on uncurated rows of a teacher that hallucinates.

    python -m tests.benchmarks.curated --seeds 3

The teacher is simulated. In one of five extractions it hallucinates, and such a record has an error of every kind that its
conversation has room for: drug swapped, dose changed, unit changed, age off, allergy invented, negation ignored, family's
illness given to the patient. Uncurated rows are taken as they come; curated ones are the first as many whose record the checker
supports. Students of equal size and recipe are scored on fresh conversations against what is true of them. Another seed is other
conversations, other errors and another test set. Prints a line as each student is done, the table and the CPU time that it took.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import random
import resource
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medkd import config
from medkd.config import StudentConfig
from medkd.quality.findings import counts_of
from medkd.quality.grounding import ground
from medkd.quality.intervals import f1_interval, paired_f1_interval
from medkd.quality.scores import Comparison, compare, total
from medkd.records import PATIENT_RECORD, Record
from medkd.samples import conversation_sha256, sample_id
from medkd.simulator.dialogue import speak
from medkd.simulator.encounters import Case, draw_facts
from medkd.stages.prepare import write_tokens
from medkd.store.files import open_store
from medkd.store.manifests import Manifest
from medkd.student.launch import launch_training
from tests.benchmarks import planted_errors
from tests.benchmarks.planted_errors import KINDS, MOODS, STYLES

HALLUCINATES = 0.2
PLANTED = tuple(kind for kind in KINDS if kind != "dose of another drug")
TOPICS = ("asthma", "gout", "GERD", "migraine", "hypertension", "pneumonia")
SHOWN = (
    "patient_details.age",
    "medical_history.conditions",
    "medical_history.allergies",
    "prescription[].drug",
    "prescription[].dose",
)

STUDENT = {
    "model_name": "curated-t5",
    "max_length": 1024,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "best_by": "last",
    "validation_samples": 0,
    "zero_stage": 1,
    "precision": "fp32",
    "architecture": {"family": "t5", "layers": 2, "width": 128, "heads": 4, "feed_forward": 256, "vocabulary": 3000},
}


def encounter(chance: random.Random) -> tuple[str, Record]:
    """A conversation and what is true of it; most name a condition that the patient does not have, or a relative's."""
    case = Case(
        topic=chance.choice(TOPICS),
        mood=chance.choice(MOODS),
        exchanges=chance.randint(4, 6),
        age=chance.randint(18, 88),
        sex=None,
        style=chance.choice(STYLES),
    )
    spoken = speak(case, draw_facts(case, chance), chance)
    said = chance.choice((planted_errors.denied_condition, planted_errors.family_condition, None))
    conversation = said(spoken.conversation, spoken.record, chance)[0] if said else spoken.conversation
    return conversation, spoken.record


def extraction(chance: random.Random) -> tuple[str, Record, bool]:
    """What the teacher makes of one conversation, and whether it hallucinated."""
    conversation, record = encounter(chance)
    if chance.random() >= HALLUCINATES:
        return conversation, record, False
    record = copy.deepcopy(record)
    for kind in PLANTED:
        error = KINDS[kind](conversation, record, chance)
        if error:
            record, conversation = error[0], error[1]
    return conversation, record, True


def training_rows(chance: random.Random, count: int, curated: bool) -> Iterator[tuple[dict[str, Any], bool]]:
    """Rows to train on, and whether the teacher hallucinated in each."""
    taken = 0
    while taken < count:
        conversation, record, hallucinated = extraction(chance)
        if curated and ground(record, conversation, PATIENT_RECORD).unsupported:
            continue
        yield _row(taken, conversation, record), hallucinated
        taken += 1


def _row(index: int, conversation: str, record: Record) -> dict[str, Any]:
    return {
        "sample_id": sample_id(index),
        "input": conversation,
        "output": PATIENT_RECORD.canonical(record),
        "conversation_sha256": conversation_sha256(conversation),
    }


def trained_student(
    rows: Sequence[dict[str, Any]], student: StudentConfig, tested: Sequence[tuple[str, Record]], folder: Path
) -> list[Comparison]:
    """Train on the rows and compare the student's answers with what is true of the tested conversations."""
    from medkd.student.decode import Extractor

    store = open_store(str(folder / "run"))
    data_set = Manifest(stage="prepare", plan_hash="p" * 64, config_hash="", files=(), counts={"data_set_hash": "d" * 64})
    splits = {"train": rows, "validation": rows[:2], "test": rows[:2]}
    write_tokens(store, "student", student, splits, PATIENT_RECORD, data_set)
    raw = json.loads((Path(config.__file__).parent.parent / "configs" / "model_configs.json").read_text())
    raw["student_models"] = {"student": student.model_dump(mode="json")}
    (folder / "configs.json").write_text(json.dumps(raw))
    arguments = ["train", "--config", str(folder / "configs.json"), "--prefix", store.url, "--student", "student"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = launch_training([*arguments, "--log-level", "WARNING"], ranks=1, environment=environment, stop=threading.Event())
    if code:
        raise SystemExit(code)
    extractor = Extractor.load(folder / "run" / "students" / "student" / "model")
    found = extractor.extract([conversation for conversation, _ in tested], max_answer_length=300)
    return [
        compare(gold, one.record, PATIENT_RECORD, one.record is not None, one.record is not None)
        for (_, gold), one in zip(tested, found, strict=True)
    ]


def measure(seed: int, num_rows: int, num_tested: int, epochs: int) -> Mapping[str, Any]:
    """Both students of one seed on the same test conversations."""
    student = StudentConfig.model_validate({**STUDENT, "num_epochs": epochs})
    chance = random.Random(f"tested {seed}")
    tested = [encounter(chance) for _ in range(num_tested)]
    compared, bad = {}, {}
    for name in ("uncurated", "curated"):
        rows = list(training_rows(random.Random(f"trained {seed}"), num_rows, name == "curated"))
        bad[name] = sum(hallucinated for _, hallucinated in rows)
        with tempfile.TemporaryDirectory() as folder:
            compared[name] = trained_student([row for row, _ in rows], student, tested, Path(folder))
        scores = total(compared[name], PATIENT_RECORD)
        print(f"seed {seed}, {name}: F1 {scores.micro.f1:.3f}, {bad[name]} hallucinated rows", flush=True)
    counts = {name: [counts_of(one) for one in of_one] for name, of_one in compared.items()}
    difference = paired_f1_interval(counts["curated"], counts["uncurated"])
    return {
        "seed": seed,
        "bad": bad,
        "scores": {name: total(of_one, PATIENT_RECORD) for name, of_one in compared.items()},
        "intervals": {name: f1_interval(of_one) for name, of_one in counts.items()},
        "difference": difference,
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Both students of each seed, then by field on average."""
    lines = [
        "| seed | uncurated: bad rows | F1 | hallucinated | curated: bad rows | F1 | hallucinated | gain (95% interval) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        cells = [str(one["seed"])]
        for name in ("uncurated", "curated"):
            scores = one["scores"][name]
            cells += [str(one["bad"][name]), f"{scores.micro.f1:.3f}", f"{scores.hallucinated:,}"]
        gain = one["scores"]["curated"].micro.f1 - one["scores"]["uncurated"].micro.f1
        cells.append(f"{gain:+.3f} ({one['difference'].low:+.3f} to {one['difference'].high:+.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| F1 of, on average over the seeds | uncurated | curated |", "| --- | --- | --- |"]
    for path in SHOWN:
        means = [sum(one["scores"][name].fields[path].f1 for one in found) / len(found) for name in ("uncurated", "curated")]
        lines.append(f"| `{path}` | {means[0]:.3f} | {means[1]:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="students trained on curated and on uncurated rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=700)
    parser.add_argument("--tested", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    found = [measure(seed, args.rows, args.tested, args.epochs) for seed in range(1, args.seeds + 1)]
    print(table(found))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    print(
        f"{args.rows} rows, {args.epochs} epochs, {args.tested} tested conversations a seed; {cpu / 60:.1f} minutes of CPU, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} x {platform.machine()}"
    )


if __name__ == "__main__":
    main()
