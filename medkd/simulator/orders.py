"""The orders of a visit, for those who ask for them in place of the patient's record: what is prescribed, why, in which turns."""

from __future__ import annotations

import re
from typing import Any

from medkd.records import NOT_PROVIDED, Record
from medkd.samples import turns

FIELD = "orders"
"""The only field of the record schema that the clinic knows beside its own."""

_TURN_NUMBER = re.compile(r"^[1-9]\d*\. ", re.MULTILINE)


def unnumbered(conversation: str) -> str:
    """The conversation without the numbers that a request puts before its turns."""
    return _TURN_NUMBER.sub("", conversation)


def orders_of(record: Record, conversation: str) -> Record:
    """The orders among what a patient's record says of its conversation."""
    reason = record["current_diagnosis"]["condition"]
    return {FIELD: [_order(item, reason, conversation) for item in record["prescription"]]}


def _order(item: dict[str, str], reason: str, conversation: str) -> dict[str, Any]:
    duration = "" if item["duration"] == NOT_PROVIDED else f"for {item['duration'].removeprefix('for ')}"
    parts = [item["drug"], item["dose"], item["frequency"], duration]
    drug = item["drug"].lower()
    return {
        "type": "medication",
        "description": " ".join(part for part in parts if part and part != NOT_PROVIDED),
        "reason": reason,
        "supporting_turns": [
            str(number)
            for number, turn in enumerate(turns(conversation), start=1)
            if turn.speaker == "Doctor" and drug in turn.text.lower()
        ],
    }
