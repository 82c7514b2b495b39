"""Models that were never trained for the task and see a few rows of the train split in their prompt: what training has to beat.

The teacher so asked is paid: each call is booked before it is sent and its reply kept under the prefix, so that another
evaluation asks, and pays, nothing again.

few-shot/<key>.json   one reply; the key is a hash of the teacher's model and the whole request
"""

from __future__ import annotations

import heapq
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from medkd.config import TeacherConfig
from medkd.errors import ConfigError, StoppedError
from medkd.quality.schema import InvalidRecord, parse_record
from medkd.quality.score_sets import Prediction
from medkd.records import Record, RecordSchema
from medkd.samples import canonical_json, sha256_hex
from medkd.stages.plan import load_plan
from medkd.store import layout
from medkd.store.files import Store
from medkd.teacher.prompts import Message, Request, extraction_request

if TYPE_CHECKING:
    from medkd.teacher.client import TeacherClient

Example = tuple[str, Record]
"""A conversation and its record."""


def chosen(train: Iterable[Mapping[str, Any]], count: int) -> list[Example]:
    """So many rows of the train split, by the hashes of their conversations: another data set gives others, chance none."""
    rows = heapq.nsmallest(count, train, key=lambda row: str(row["conversation_sha256"]))
    return [(row["input"], json.loads(row["output"])) for row in rows]


@dataclass(frozen=True, kw_only=True)
class AskedTeacher:
    """A teacher to ask with examples, how many test rows it may answer, and what that may cost at most in US dollars."""

    name: str
    teacher: TeacherConfig
    client: TeacherClient
    num_rows: int
    budget_usd: float | None

    def __post_init__(self) -> None:
        if self.budget_usd is None and not self.teacher.prices.free:
            raise ConfigError(
                f"--budget-usd: missing; teacher {self.name} has a price, say what it may cost with the run's other calls"
            )
        if self.teacher.mode != "call":
            raise ConfigError(f"teacher_models.{self.name}.mode: got {self.teacher.mode!r}, expected call to ask with examples")


def check_phi(store: Store, asked: AskedTeacher, rows: Iterable[Mapping[str, Any]]) -> None:
    """ConfigError where test rows may be patient data and nobody has an agreement with the teacher.

    Imported rows count as patient data unless the run's own plan says that they are none: who lent them is not asked.
    """
    source = load_plan(store)[0].source
    harmless = source is not None and not source.contains_phi
    if not asked.teacher.phi_agreement and not harmless and any(row["source"] == "imported" for row in rows):
        raise ConfigError(
            f"teacher_models.{asked.name}.phi_agreement: got false, but test rows may be patient data; set it to true if your "
            "agreement with the provider covers them, or leave --few-shot-teacher out"
        )


def few_shot_request(examples: Sequence[Example], conversation: str, schema: RecordSchema, teacher: TeacherConfig) -> Request:
    """The extraction's own request with examples before it, as turns that the teacher seems to have answered."""
    asked = partial(extraction_request, schema=schema, teacher=teacher, seed=1)
    system, question = asked(conversation).messages
    shown = [
        message
        for known, record in examples
        for message in (asked(known).messages[1], Message("assistant", schema.canonical(record)))
    ]
    return replace(asked(conversation), messages=(system, *shown, question))


def teachers_answers(
    store: Store,
    asked: AskedTeacher,
    examples: Sequence[Example],
    conversations: Sequence[str],
    schema: RecordSchema,
    stop: threading.Event,
) -> list[Prediction]:
    """The teacher's answers to the first `num_rows` conversations; BudgetError where the run's budget has no room for them."""
    requests = [few_shot_request(examples, text, schema, asked.teacher) for text in conversations[: asked.num_rows]]

    def answer(request: Request) -> str:
        if stop.is_set():
            raise StoppedError("evaluation stopped; run it again, what was answered is kept")
        return _reply(store, asked, request)

    with ThreadPoolExecutor(min(8, asked.teacher.limits.max_concurrency)) as pool:
        answers = pool.map(answer, requests)
        try:
            return [_prediction(text, schema) for text in answers]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _reply(store: Store, asked: AskedTeacher, request: Request) -> str:
    """The text of the reply, empty where there is none that can be used; from the store where it was bought before."""
    said = [[message.role, message.text] for message in request.messages]
    key = sha256_hex(canonical_json([asked.name, asked.teacher.model, request.reply_limit, said]))[:32]
    path = layout.few_shot_reply(key)
    try:
        return str(json.loads(store.read(path))["text"])
    except FileNotFoundError:
        pass
    # Here and not above: it needs the teacher's client, and most evaluations ask no teacher.
    from medkd.stages.bookings import Booking

    booking = Booking(store, asked.name, key, asked.budget_usd)
    answer = asked.client.ask(request, booking.reserve, booking.release)
    text = answer.reply.text if answer.reply and answer.outcome == "reply" else ""
    # The reply first: a booking that was never settled stands with its worst case. Without one the next evaluation asks anew.
    if answer.reply:
        store.replace(path, json.dumps({"format": 1, "text": text, "cost_usd": answer.cost_usd}).encode())
    booking.settle(answer)
    return text


def _prediction(text: str, schema: RecordSchema) -> Prediction:
    try:
        return Prediction(record=parse_record(text, schema), raw_text=text, valid_json=True)
    except InvalidRecord as problem:
        return Prediction(record=None, raw_text=text, valid_json=problem.kind != "not_json")
