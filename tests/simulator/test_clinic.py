"""The clinic writes what it is asked for, the same for the same request, and speaks the facts of its gold record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.records import NOT_PROVIDED, PATIENT_RECORD
from medkd.samples import turns
from medkd.simulator.ailments import AILMENTS
from medkd.simulator.clinic import Answer, Question, answer
from medkd.simulator.formulary import DRUGS
from tests.simulator.asking import asked

CONFIG = json.loads((Path(__file__).parents[2] / "configs" / "model_configs.json").read_text())
TOPICS = CONFIG["generation_settings"]["conversation_topics"]


def write(topic: str = "hypertension", *, seed: int | None = 7, **changes: Any) -> Answer:
    messages = (("user", asked(topic, **changes)),)
    return answer(Question(messages=messages, seed=seed, json_schema=None, wants_json=False))


@pytest.mark.parametrize("topic", TOPICS)
def test_every_configured_topic_is_seen_with_its_own_symptoms_and_medicines(topic: str) -> None:
    assert topic in AILMENTS
    ailment = AILMENTS[topic]
    for case in range(12):
        gold = write(topic, case=f"{case:08x}").gold
        assert gold is not None
        assert gold["current_diagnosis"]["condition"] in (ailment.diagnosis or topic, NOT_PROVIDED)
        assert set(gold["current_diagnosis"]["symptoms"]) <= set(ailment.symptoms)
        for item in gold["prescription"]:
            assert item["drug"] in ailment.drugs
            assert item["dose"] in (*DRUGS[item["drug"]].doses, NOT_PROVIDED)


@given(topic=st.text(st.characters(categories=("Ll", "Lu", "Nd")), min_size=1, max_size=30), exchanges=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_any_word_is_a_topic_and_any_number_of_exchanges_gets_an_answer(topic: str, exchanges: int) -> None:
    written = write(topic, exchanges=exchanges)
    speakers = [turn.speaker for turn in turns(written.text)]
    assert speakers == ["Doctor", "Patient"] * min(max(exchanges, 2), 40)
    assert written.gold is not None and written.gold["current_diagnosis"]["condition"] in (topic, NOT_PROVIDED)


def test_a_custom_topic_is_named_as_the_diagnosis_nearly_always() -> None:
    named = [write("shin splints", case=f"{case:08x}") for case in range(60)]
    assert sum("shin splints" in written.text for written in named) > 45


def test_the_same_request_gets_the_same_conversation_and_any_change_another_one() -> None:
    first = write()
    assert write() == first
    variations = [write(seed=8), write(case="00000001"), write(mood="calm"), write(age=55), write(style="brief")]
    assert len({first.text, *(other.text for other in variations)}) == 6


@pytest.mark.parametrize("case", range(80))
def test_every_value_of_the_gold_record_is_spoken(case: int) -> None:
    written = write(TOPICS[case], case=f"{case:08x}", exchanges=2 + case % 9)
    assert written.gold is not None
    spoken = written.text.lower()
    for path, value in PATIENT_RECORD.values(written.gold):
        if value not in (NOT_PROVIDED, "none") and path not in ("patient_details.sex", "patient_details.age"):
            assert value.lower() in spoken, path


def test_facts_are_missing_denied_and_given_in_turn() -> None:
    golds = [write(topic, case=f"{index:08x}").gold for index, topic in enumerate(TOPICS)]
    for field in ("conditions", "medications", "allergies", "family_history"):
        entries = [gold["medical_history"][field] for gold in golds if gold]
        assert [] in entries and ["none"] in entries and any(entry not in ([], ["none"]) for entry in entries)
    for field in ("name", "age", "sex", "occupation"):
        values = [gold["patient_details"][field] for gold in golds if gold]
        assert NOT_PROVIDED in values and any(value != NOT_PROVIDED for value in values)
    sizes = {len(gold["prescription"]) for gold in golds if gold}
    assert sizes == {0, 1, 2}


def test_nobody_is_given_what_they_are_allergic_to() -> None:
    for index in range(400):
        gold = write(TOPICS[index % len(TOPICS)], case=f"{index:08x}", exchanges=10).gold
        assert gold is not None
        for item in gold["prescription"]:
            assert not set(DRUGS[item["drug"]].allergens) & set(gold["medical_history"]["allergies"])


@pytest.mark.parametrize(("topic", "sex"), [("prenatal visit", "female"), ("benign prostatic hyperplasia", "male")])
def test_a_topic_of_one_sex_is_seen_with_that_sex_whatever_was_asked(topic: str, sex: str) -> None:
    asked_for = "male" if sex == "female" else "female"
    spoken = {write(topic, sex=asked_for, case=f"{case:08x}").gold["patient_details"]["sex"] for case in range(20)}  # type: ignore[index]
    assert spoken <= {sex, NOT_PROVIDED} and sex in spoken


def test_moods_and_styles_are_heard_also_unknown_ones() -> None:
    assert "I feel grumpy today" in write(mood="grumpy").text
    hesitant = [write(style="hesitant", case=f"{case:08x}").text for case in range(10)]
    assert any(re.search(r"Patient: (?:Um|Well, uh|Let me think),", text) for text in hesitant)


def test_other_questions_get_a_polite_answer_in_the_asked_form() -> None:
    plain = answer(Question(messages=(("user", "ping"),), seed=None, json_schema=None, wants_json=False))
    assert plain.kind == "other" and plain.gold is None
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "names": {"type": "array", "items": {"type": "string"}}},
    }
    formed = answer(Question(messages=(("user", "ping"),), seed=None, json_schema=schema, wants_json=True))
    assert json.loads(formed.text) == {"ok": False, "names": []}


def test_a_record_follows_the_schema_that_was_sent() -> None:
    schema = {
        "type": "object",
        "properties": {
            "patient_details": {"type": "object", "properties": {"age": {"type": "string"}, "shoe_size": {"type": "string"}}}
        },
    }
    talk = "<conversation>\nDoctor: How old are you?\nPatient: I'm 41.\n</conversation>"
    formed = answer(Question(messages=(("user", talk),), seed=None, json_schema=schema, wants_json=True))
    assert json.loads(formed.text) == {"patient_details": {"age": "41", "shoe_size": NOT_PROVIDED}}
