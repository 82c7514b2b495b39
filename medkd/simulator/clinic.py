"""The clinic: answers what a teacher is asked, from the text of the request alone.

Three kinds of question are understood: write a conversation (the prompt names Topic, Mood, Exchanges, Patient, Way of
speaking and Case, each on a line), extract the record of the text between <conversation> tags, and anything else, which
gets a polite sentence. Equal requests get equal answers: all chance comes from a SHA-256 of what was asked.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass
from typing import Any, Literal

from medkd.records import PATIENT_RECORD, Record
from medkd.simulator.dialogue import Spoken, speak
from medkd.simulator.encounters import Case, draw_facts
from medkd.simulator.json_schemas import conform
from medkd.simulator.orders import FIELD, orders_of, unnumbered
from medkd.simulator.reader import read_record


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a request asks, whichever protocol carried it."""

    messages: tuple[tuple[str, str], ...]
    """(role, text) in order, the system text first."""
    seed: int | None
    json_schema: dict[str, Any] | None
    """The schema the answer has to follow, None for free text."""
    wants_json: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The clinic's answer. `gold` is the record of a conversation it wrote itself, None for other answers."""

    kind: Literal["conversation", "extraction", "other"]
    text: str
    gold: Record | None = None


_CONVERSATION = re.compile(r"<conversation>\n?(.*?)\n?</conversation>", re.DOTALL)
_ASKED = re.compile(r"^(Topic|Patient's mood|Mood|Exchanges|Patient|Way of speaking|Case):[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def answer(question: Question) -> Answer:
    """The answer to one question, pure in it."""
    asked = "\n".join(text for role, text in question.messages if role == "user")
    transcripts = _CONVERSATION.findall(asked)
    if transcripts:
        # Those before it are examples.
        conversation = unnumbered(transcripts[-1])
        record = _wanted(read_record(conversation), conversation, question)
        return Answer(kind="extraction", text=_as_json(record, question.json_schema))
    lines = dict(_ASKED.findall(asked))
    if "Topic" in lines and not question.wants_json:
        spoken = _encounter(_case(lines), asked, question.seed)
        record = json.loads(PATIENT_RECORD.canonical(spoken.record))
        return Answer(kind="conversation", text=spoken.conversation, gold=_wanted(record, spoken.conversation, question))
    if question.wants_json:
        return Answer(kind="other", text=_as_json({"answer": "ok"}, question.json_schema))
    return Answer(kind="other", text="Hello, this is the clinic. Which patient shall we see?")


def _wanted(record: Record, conversation: str, question: Question) -> Record:
    """The record as the question has it: the patient's, or the orders where it describes a field for these."""
    described = f"\n- {FIELD} (list of objects)"
    return orders_of(record, conversation) if any(described in text for _, text in question.messages) else record


def _encounter(case: Case, asked: str, seed: int | None) -> Spoken:
    digest = hashlib.sha256(f"{seed}\n{asked}".encode("utf-8", "surrogatepass")).digest()
    rng = random.Random(int.from_bytes(digest[:16], "big"))
    return speak(case, draw_facts(case, rng), rng)


def _case(lines: dict[str, str]) -> Case:
    patient = lines.get("Patient", "").lower()
    age, sex = re.search(r"\d+", patient), re.search(r"\b(?:fe)?male\b", patient)
    exchanges = re.search(r"\d+", lines.get("Exchanges", ""))
    return Case(
        topic=lines["Topic"],
        mood=lines.get("Patient's mood", lines.get("Mood", "calm")),
        exchanges=int(exchanges[0]) if exchanges else 6,
        age=min(int(age[0]), 120) if age else None,
        sex=sex[0] if sex else None,
        style=lines.get("Way of speaking", "plain").lower(),
    )


def _as_json(value: Record, json_schema: dict[str, Any] | None) -> str:
    if json_schema is None or json_schema.get("properties", {}).keys() == PATIENT_RECORD.empty().keys():
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return json.dumps(conform(value, json_schema), ensure_ascii=False, separators=(",", ":"))
