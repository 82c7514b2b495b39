"""Students small enough to be trained for real in a test: a data set of a few records, and the command that trains."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from medkd import config
from medkd.config import StudentConfig
from medkd.records import PATIENT_RECORD
from medkd.samples import conversation_sha256, sample_id
from medkd.stages.prepare import write_tokens
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.student.launch import launch_training

_FACTS = [
    ("Ms. Clarke", "54", "female", "asthma", ["wheezing", "cough"], "albuterol", "90 mcg"),
    ("Omar Haddad", "31", "male", "gout", ["toe pain"], "colchicine", "0.6 mg"),
    ("Li Wei", "67", "male", "hypertension", ["dizziness", "headache"], "lisinopril", "12.5 mg"),
    ("Anna [née Berg]", "8", "female", "ear infection", ["ear pain", "fever"], "amoxicillin", "250 mg/5 mL"),
    ("José", "45", "male", "migraine", ["nausea"], "sumatriptan", '"50" mg'),
]


def rows() -> list[dict[str, Any]]:
    """Five samples with different records."""
    return [_row(index, *facts) for index, facts in enumerate(_FACTS)]


def _row(index: int, name: str, age: str, sex: str, condition: str, symptoms: list[str], drug: str, dose: str) -> dict[str, Any]:
    conversation = (
        f"Doctor: Good morning, {name}.\nPatient: Hello. I am {age}, and I have had {' and '.join(symptoms)}.\n"
        f"Doctor: It is {condition}. Take {drug}, {dose}."
    )
    record = PATIENT_RECORD.empty()
    record["patient_details"] |= {"name": name, "age": age, "sex": sex}
    record["current_diagnosis"] |= {"condition": condition, "symptoms": symptoms}
    record["prescription"] = [{"drug": drug, "dose": dose, "frequency": "NOT PROVIDED", "duration": "NOT PROVIDED"}]
    return {
        "sample_id": sample_id(index),
        "topic": condition,
        "input": conversation,
        "output": PATIENT_RECORD.canonical(record),
        "conversation_sha256": conversation_sha256(conversation),
    }


def tiny_student(family: str, **changes: Any) -> StudentConfig:
    """A student that learns five records by heart in seconds."""
    values = {
        "model_name": f"tiny-{family}",
        "max_length": 256,
        "batch_size": 3,
        "learning_rate": 5e-3,
        "num_epochs": 200,
        "best_by": "last",
        "validation_samples": 0,
        "architecture": {"family": family, "layers": 2, "width": 64, "heads": 2, "feed_forward": 128, "vocabulary": 500},
    }
    return StudentConfig.model_validate({**values, **changes})


def prepare_tokens(store: Store, name: str, student: StudentConfig, samples: list[dict[str, Any]] | None = None) -> Manifest:
    """What stage prepare leaves for a student, of these samples or else of `rows`."""
    samples = samples or rows()
    data_set = Manifest(stage="prepare", plan_hash="p" * 64, config_hash="", files=(), counts={"data_set_hash": "d" * 64})
    splits = {"train": samples, "validation": samples[:3], "test": samples}
    return write_tokens(store, name, student, splits, PATIENT_RECORD, data_set)


def train(folder: Path, name: str, student: StudentConfig, *, ranks: int = 2, stop: threading.Event | None = None) -> int:
    """`medkd train` on real ranks; the exit code."""
    raw = json.loads((Path(config.__file__).parent.parent / "configs" / "model_configs.json").read_text())
    raw["student_models"] = {name: student.model_dump(mode="json")}
    path = folder / "configs.json"
    path.write_text(json.dumps(raw))
    arguments = ["train", "--config", str(path), "--prefix", str(folder / "run"), "--student", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return launch_training(arguments, ranks=ranks, environment=environment, stop=stop or threading.Event())


def metrics(store: Store, name: str) -> list[dict[str, Any]]:
    """The lines of a training's metrics, without what was timed and how much memory it took."""
    lines = [json.loads(line) for line in store.read(f"students/{name}/train/metrics.jsonl").splitlines()]
    return [{key: line[key] for key in line if not key.endswith(("second", "seconds", "bytes"))} for line in lines]
