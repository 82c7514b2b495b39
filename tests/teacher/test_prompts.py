"""What teachers are asked: the lines others parse, and what each repair changes."""

from __future__ import annotations

from dataclasses import replace

from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from medkd.samples import SampleSpec, sha256_hex
from medkd.teacher.prompts import Request, conversation_request, enlarged, extraction_request, prompt_version, repaired
from tests.schema_strategy import ORDERS
from tests.teacher.scripted import teacher

SPEC = SampleSpec(
    index=7, variation=1, topic="hypertension", mood="anxious", exchanges=8, age=54, sex="female", style="rambling", seed=3
)


def user_text(request: Request) -> str:
    return next(message.text for message in request.messages if message.role == "user")


def test_the_conversation_call_states_the_sample_line_by_line():
    lines = user_text(conversation_request(SPEC, teacher())).splitlines()
    assert lines[:5] == [
        "Topic: hypertension",
        "Patient's mood: anxious",
        "Exchanges: 8",
        "Patient: 54-year-old female",
        "Way of speaking: rambling",
    ]
    assert lines[5].startswith("Case: ") and len(lines[5]) == len("Case: 7f3a9c21") and len(lines) == 6


def test_equal_personas_get_different_cases_and_the_same_sample_always_the_same():
    case = {
        name: user_text(conversation_request(spec, teacher())).splitlines()[5]
        for name, spec in {
            "again": replace(SPEC),
            "first": SPEC,
            "other sample": replace(SPEC, index=8),
            "other variation": replace(SPEC, variation=2),
            "other seed": replace(SPEC, seed=4),
        }.items()
    }
    assert case["again"] == case["first"]
    assert len(set(case.values())) == 4


def test_a_seed_and_a_temperature_are_sent_only_to_teachers_that_take_them():
    plain = conversation_request(SPEC, teacher())
    taking = conversation_request(SPEC, teacher(takes_seed=True, temperature=0.9))
    assert (plain.seed, plain.temperature) == (None, None)
    assert (taking.seed, taking.temperature) == (3, 0.9)
    extraction = extraction_request("Doctor: Hi", PATIENT_RECORD, teacher(takes_seed=True, temperature=0.9), seed=5)
    assert (extraction.seed, extraction.temperature) == (5, 0.0)
    assert extraction_request("Doctor: Hi", PATIENT_RECORD, teacher(), seed=5).temperature is None


def test_the_extraction_call_ends_with_the_conversation_between_its_tags():
    request = extraction_request("Doctor: Hi\nPatient: Hello\n", PATIENT_RECORD, teacher(), seed=1)
    system, user = request.messages
    assert user.text.endswith("\n<conversation>\nDoctor: Hi\nPatient: Hello\n</conversation>")
    assert "JSON" in system.text and NOT_PROVIDED in system.text
    assert all(field.name in system.text for field in PATIENT_RECORD.fields)
    assert request.json_schema == PATIENT_RECORD.json_schema()


def texts_hash(request: Request) -> str:
    return sha256_hex(chr(0).join(message.text for message in request.messages))


def test_the_patients_prompts_are_as_version_1_has_them_and_an_own_schema_is_asked_for_in_sentences():
    assert prompt_version(PATIENT_RECORD) == 1
    assert texts_hash(conversation_request(SPEC, teacher())).startswith("c46e281c")
    assert texts_hash(extraction_request("Doctor: Hi", PATIENT_RECORD, teacher(), seed=1)).startswith("0382b66f")
    system, user = extraction_request("Doctor: Hi", ORDERS, teacher(), seed=1).messages
    wanted = "as one JSON object, the orders that the doctor gives in this visit."
    assert system.text.startswith(f"You read a conversation between a doctor and a patient. From it you write, {wanted}\n")
    assert user.text.startswith(f"Read this conversation and write, {wanted}\n\n<conversation>\n1. Doctor: Hi")
    rules = conversation_request(SPEC, teacher(), ORDERS).messages[0].text
    assert "will be searched for the orders that the doctor gives in this visit. Let it hold most of the following" in rules


def test_a_repair_shows_the_answer_and_its_problem_and_ends_with_the_user():
    request = extraction_request("Doctor: Hi", PATIENT_RECORD, teacher(), seed=1)
    again = repaired(request, '{"age": 5}', "age: got a number, expected text")
    assert again.messages[:2] == request.messages
    assert [message.role for message in again.messages[2:]] == ["assistant", "user"]
    assert again.messages[2].text == '{"age": 5}' and "age: got a number" in again.messages[3].text


def test_a_repair_after_an_empty_answer_sends_no_empty_message():
    again = repaired(conversation_request(SPEC, teacher()), "  \n", "empty")
    assert all(message.text.strip() for message in again.messages)


def test_an_enlarged_request_differs_only_in_its_room():
    request = conversation_request(SPEC, teacher())
    assert enlarged(request) == replace(request, reply_limit=2 * request.reply_limit)
