"""Conversations of several windows, from their tokens through training and saving to the verb that reads them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from medkd.commands.flags import build_parser
from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from medkd.samples import conversation_sha256, sample_id
from medkd.store import tables
from medkd.store.files import open_store
from tests.student.trained import prepare_tokens, rows, tiny_student, train

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

_PATIENTS = [
    ("Ms. Clarke", "54", "female", "penicillin", "asthma", ["wheezing", "cough"], "albuterol", "90 mcg"),
    ("Mr. Haddad", "31", "male", "none", "gout", ["toe pain"], "colchicine", "0.6 mg"),
    ("Mr. Wei", "67", "male", "latex", "hypertension", ["dizziness", "headache"], "lisinopril", "12.5 mg"),
]
_SMALL_TALK = ["Doctor: The weather has been fine.", "Patient: Yes, at last.", "Doctor: Let me see.", "Patient: Take your time."]


def long_row(
    index: int, name: str, age: str, sex: str, allergy: str, condition: str, symptoms: list[str], drug: str, dose: str
) -> dict[str, Any]:
    denied = allergy == "none"
    conversation = "\n".join(
        [
            f"Doctor: Good morning, {name}.",
            f"Patient: Hello. I am {age}.",
            *_SMALL_TALK * 2,
            f"Patient: I have had {' and '.join(symptoms)}.",
            "Doctor: Any allergies?",
            f"Patient: {'No allergies' if denied else f'I am allergic to {allergy}'}.",
            *_SMALL_TALK * 2,
            f"Doctor: It is {condition}. Take {drug}, {dose}.",
        ]
    )
    record = PATIENT_RECORD.empty()
    record["patient_details"] |= {"name": name, "age": age, "sex": sex}
    record["medical_history"]["allergies"] = [allergy]
    record["current_diagnosis"] |= {"condition": condition, "symptoms": symptoms}
    record["prescription"] = [{"drug": drug, "dose": dose, "frequency": NOT_PROVIDED, "duration": NOT_PROVIDED}]
    return {
        "sample_id": sample_id(index),
        "topic": condition,
        "input": conversation,
        "output": PATIENT_RECORD.canonical(record),
        "conversation_sha256": conversation_sha256(conversation),
    }


# T5 learns them in 300 epochs, which is too long for every check: name "t5" here, too, to see it.
@pytest.mark.parametrize("family", ["gpt2"])
def test_a_student_learns_and_reads_conversations_longer_than_it_reads_at_once(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [long_row(index, *patient) for index, patient in enumerate(_PATIENTS)]
    store = open_store(str(tmp_path / "run"))
    student = tiny_student(family, max_length=110, num_epochs=300 if family == "t5" else 120)
    counts = prepare_tokens(store, "tiny", student, [*known, *rows()[3:]]).counts
    assert (counts["train_windowed"], counts["train_set_aside"], counts["test_windowed"]) == (3, 0, 3)
    statistics = json.loads(store.read("students/tiny/tokens/statistics.json"))["splits"]["train"]
    assert statistics["windowed"]["samples"] == 3 and statistics["set_aside"] == {}
    assert statistics["windowed"]["windows"] == statistics["rows"] - 2 > 5
    assert statistics["input_tokens"]["max"] <= 110
    assert train(tmp_path, "tiny", student) == 0

    visits, output = tmp_path / "visits.jsonl", tmp_path / "records.jsonl"
    asked = [*known, *rows()[3:]]
    visits.write_text("".join(json.dumps({"id": row["sample_id"], "conversation": row["input"]}) + "\n" for row in asked))
    model = str(tmp_path / "run/students/tiny/model")
    flags = ["--input", str(visits), "--output", str(output), "--id-column", "id", "--batch-size", "3"]
    args = build_parser().parse_args(["extract", "--model", model, *flags])
    assert args.verb(args, threading.Event()) == 0
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["record"] for line in found] == [json.loads(row["output"]) for row in asked]
    assert [line["windows"] > 1 for line in found] == [True] * 3 + [False] * 2
    assert [line["windows"] for line in found[3:]] == [1, 1]
    assert all(-0.2 < line["mean_logprob"] < 0 and "unanswered_windows" not in line for line in found)
    assert "3 were longer than the student reads at once, so their records are merged from windows" in capsys.readouterr().out

    flags = ["--conversations", str(visits), "--gold", str(tmp_path / "gold.jsonl"), "--output", str(tmp_path / "scored")]
    (tmp_path / "gold.jsonl").write_text(
        "".join(json.dumps({"id": row["sample_id"], "record": json.loads(row["output"])}) + "\n" for row in asked)
    )
    args = build_parser().parse_args(["evaluate", "--model", model, "--id-column", "id", *flags])
    assert args.verb(args, threading.Event()) == 0
    scores = json.loads((tmp_path / "scored/scores.json").read_text())
    assert (scores["counts"]["windowed"], scores["windowed"]["num_samples"], scores["truncated"]) == (3, 3, None)
    assert scores["windowed"]["scores"]["student"]["micro"]["f1"] == 1.0
    predictions = tables.decode((tmp_path / "scored/predictions.parquet").read_bytes())
    assert [row["windows"] for row in predictions] == [line["windows"] for line in found]


def test_a_window_whose_answer_is_cut_marks_the_conversation_and_leaves_the_others_records() -> None:
    from medkd.stages.answers import asked
    from medkd.student.decode import Extraction

    class Extractor:
        """Answers each window with its own drug, one with something else."""

        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

        def extract(self, texts: list[str], **options: Any) -> list[Extraction]:
            return [self._answer(text) for text in texts]

        def _answer(self, text: str) -> Extraction:
            said: dict[str, Any] = {"raw_text": text, "mean_logprob": -0.5, "length": 9, "written": 4}
            if "colchicine" not in text:
                return Extraction(**said, record=None, cut="answer_too_long")
            record = PATIENT_RECORD.empty()
            record["medical_history"]["medications"] = ["colchicine"]
            return Extraction(**{**said, "mean_logprob": -0.1, "written": 12}, record=record, cut=None)

    from medkd.student.tokens import build_tokenizer

    student = tiny_student("gpt2", max_length=110)
    tokenizer = build_tokenizer(open_store("memory://cut"), student, rows(), PATIENT_RECORD, Path("unused"))
    talk = long_row(0, *_PATIENTS[1])["input"]
    options = {"name": "student", "most_tokens": None, "stop": threading.Event()}
    (found,) = asked(Extractor(tokenizer), [talk], **options)  # type: ignore[arg-type]
    assert found.windows > 2 and found.truncated
    assert found.record and found.record["medical_history"]["medications"] == ["colchicine"]
    others = found.windows - 1
    assert found.mean_logprob == pytest.approx(-(0.1 * 12 + 0.5 * 4 * others) / (12 + 4 * others))
    (silent,) = asked(Extractor(tokenizer), [talk.replace("colchicine", "rest")], **options)  # type: ignore[arg-type]
    assert (silent.record, silent.truncated) == (None, True)
