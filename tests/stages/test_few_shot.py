"""Models that see a few training rows in their prompt: the teacher, paid once, and a causal student before training."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from medkd.config import Prices
from medkd.errors import BudgetError, ConfigError
from medkd.records import PATIENT_RECORD
from medkd.simulator.server import Server
from medkd.stages.few_shot import AskedTeacher, check_phi, chosen, few_shot_request, teachers_answers
from medkd.stages.plan import ConversationSource
from medkd.stages.prepare import stream_splits
from medkd.store import budget, layout, manifests
from medkd.store.conversations import Columns, survey
from medkd.store.files import Store, open_store
from medkd.teacher.client import TeacherClient
from tests.generation import planned, simulated, start_simulator
from tests.quality.written_run import write_run
from tests.student.trained import tiny_student

COLUMNS = ("conversation_sha256", "input", "output")


def written(url: str) -> Store:
    store = open_store(url)
    write_run(store, num_samples=40, topics=["asthma", "gout"], moods=["calm"])
    return store


def splits_of(store: Store) -> dict[str, list[dict[str, str]]]:
    found = stream_splits(store, manifests.require(store, layout.DATASET_MANIFEST, "prepare"), COLUMNS)
    return {split: list(rows) for split, rows in found.items()}


def asked(server: Server, budget_usd: float | None, price: float = 1.0) -> AskedTeacher:
    teacher = simulated(server, prices=Prices(input=price, output=price))
    client = TeacherClient(teacher, api_key=None, stop=threading.Event())
    return AskedTeacher(name="simulator", teacher=teacher, client=client, num_rows=3, budget_usd=budget_usd)


def test_a_teacher_is_asked_with_examples_and_paid_once() -> None:
    store = written("memory://few-shot")
    rows = splits_of(store)
    examples = chosen(rows["train"], 2)
    assert examples == chosen(rows["train"][::-1], 2) and len(examples) == 2
    conversations = [row["input"] for row in rows["test"]]
    with start_simulator() as server:
        teacher = asked(server, budget_usd=5.0)
        first = teachers_answers(store, teacher, examples, conversations, PATIENT_RECORD, threading.Event())
        paid = server.counters.stats()["billed_total"]
        again = teachers_answers(store, teacher, examples, conversations, PATIENT_RECORD, threading.Event())
        assert server.counters.stats()["billed_total"] == paid == 3
    assert first == again and len(first) == 3
    # The conversation of the question is what is answered, not one of the examples.
    names = [one.record["patient_details"]["name"] for one in first if one.record]
    assert names and all(name in text for name, text in zip(names, conversations, strict=False))
    booked = [json.loads(store.read(file.path)) for file in store.list_files(layout.PREFLIGHT)]
    kept = [json.loads(store.read(file.path)) for file in store.list_files(layout.FEW_SHOT)]
    assert len(booked) == len(kept) == 3 and all(one["possibly_usd"] == 0 for one in booked)
    assert sum(one["spent_usd"] for one in booked) == pytest.approx(sum(one["cost_usd"] for one in kept)) and kept[0]["cost_usd"]
    assert budget.booked_usd(store) == pytest.approx(sum(one["spent_usd"] for one in booked))


def test_a_budget_without_room_stops_it_before_it_is_asked() -> None:
    store = written("memory://few-shot-poor")
    rows = splits_of(store)
    with start_simulator() as server:
        with pytest.raises(BudgetError, match=r"--budget-usd: got 0\.001"):
            teachers_answers(
                store,
                asked(server, budget_usd=0.001, price=100.0),
                chosen(rows["train"], 1),
                [rows["test"][0]["input"]],
                PATIENT_RECORD,
                threading.Event(),
            )
        assert server.counters.stats()["billed_total"] == 0
        with pytest.raises(ConfigError, match="--budget-usd: missing; teacher simulator has a price"):
            asked(server, budget_usd=None)


@pytest.mark.parametrize(("contains_phi", "agreement", "asks"), [(True, False, False), (True, True, True), (False, False, True)])
def test_patient_data_goes_to_no_teacher_without_an_agreement(
    contains_phi: bool, agreement: bool, asks: bool, tmp_path: Path
) -> None:
    path = tmp_path / "visits.jsonl"
    path.write_text(json.dumps({"conversation": "Doctor: Hello.\nPatient: Hello."}) + "\n")
    columns = Columns()
    source = ConversationSource(files=tuple(survey([str(path)], columns)), columns=columns, contains_phi=contains_phi)
    store = open_store(f"memory://few-shot-phi-{contains_phi}-{agreement}")
    with start_simulator() as server:
        teacher = asked(server, budget_usd=1.0)
        teacher = replace(teacher, teacher=teacher.teacher.model_copy(update={"phi_agreement": agreement}))
        planned(store, teacher.teacher.model_copy(update={"phi_agreement": True}), samples=None, source=source, budget_usd=9.0)
        if asks:
            check_phi(store, teacher, [{"source": "imported"}])
        else:
            with pytest.raises(ConfigError, match=r"simulator\.phi_agreement: got false"):
                check_phi(store, teacher, [{"source": "generated"}, {"source": "imported"}])
            check_phi(store, teacher, [{"source": "generated"}])


def test_the_request_shows_the_examples_as_answered_turns() -> None:
    with start_simulator() as server:
        teacher = simulated(server)
    examples = [("Doctor: Name?\nPatient: Bo.", PATIENT_RECORD.empty())]
    request = few_shot_request(examples, "Doctor: Hello.", PATIENT_RECORD, teacher)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert "Patient: Bo." in request.messages[1].text and "Doctor: Hello." in request.messages[3].text
    assert request.messages[2].text == PATIENT_RECORD.canonical(PATIENT_RECORD.empty())


def test_a_causal_students_prompt_holds_as_many_examples_as_fit(tmp_path: Path) -> None:
    from medkd.student.few_shot import WithExamples
    from medkd.student.tokens import build_tokenizer

    rows = splits_of(written("memory://few-shot-student"))["train"]
    examples = chosen(rows, 3)
    student = tiny_student(
        "gpt2", max_length=4000, architecture={**tiny_student("gpt2").architecture.model_dump(), "vocabulary": 1000}
    )  # type: ignore[union-attr]
    tokenizer = build_tokenizer(open_store("memory://unused"), student, rows, PATIENT_RECORD, tmp_path)
    conversation = rows[-1]["input"]
    bare, one = tokenizer.prompt(conversation), len(WithExamples(tokenizer, examples[:1], 100).prompt(conversation))
    whole = WithExamples(tokenizer, examples, 100).prompt(conversation)
    assert whole[-len(bare) :] == bare and len(whole) > one > len(bare)
    assert whole.count(tokenizer.end) == 3
    tight = WithExamples(tokenizer, examples, student.max_length - one)
    assert len(tight.prompt(conversation)) <= one and tight.prompt(conversation)[-len(bare) :] == bare
