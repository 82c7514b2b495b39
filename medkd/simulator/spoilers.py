"""Spoilt answers: the completion is made and billed, and what is sent is not what was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

from medkd.records import Record
from medkd.simulator.orders import FIELD as ORDERS
from medkd.simulator.replies import Reply

Spoiler = Callable[[Reply], Reply]


_INVENTED: dict[str, Record] = {
    "prescription": {"drug": "zanubrutinib", "dose": "160 mg", "frequency": "twice daily", "duration": "30 days"},
    ORDERS: {
        "type": "medication",
        "description": "zanubrutinib 160 mg twice daily for 30 days",
        "reason": "mantle cell lymphoma",
        "supporting_turns": ["1"],
    },
}


def _cut(text: str) -> str:
    return text[: len(text) * 2 // 3]


def _with_nan(text: str) -> str:
    """The first string value becomes NaN, which Python's parser takes and JSON forbids."""
    return re.sub(r':"(?:[^"\\]|\\.)*"', ":NaN", text, count=1)


def _with_duplicate_key(text: str) -> str:
    return re.sub(r"^\{(\s*\"[^\"]*\")", r"{\1:null,\1", text, count=1)


def _hallucinated(text: str) -> str:
    """The record, or the orders, with a medicine that nobody mentioned in place of the last one."""
    try:
        record: Record = json.loads(text)
        name = next(name for name in _INVENTED if name in record)
        *others, last = record[name] or [_INVENTED[name]]
        items = [*others, {member: _INVENTED[name].get(member, value) for member, value in last.items()}]
    except (ValueError, StopIteration, TypeError, AttributeError):
        return text
    return json.dumps({**record, name: items}, ensure_ascii=False, separators=(",", ":"))


def _text(change: Callable[[str], str]) -> Spoiler:
    return lambda reply: replace(reply, text=change(reply.text))


def _finished(word: str | None) -> Spoiler:
    return lambda reply: replace(reply, finish_word=(word,))


RECORD_SPOILERS: dict[str, Spoiler] = {
    "fenced_json": _text(lambda text: f"```json\n{text}\n```"),
    "cut_json": _text(_cut),
    "cut_json_that_parses": lambda reply: replace(reply, finish="length"),
    "nan_json": _text(_with_nan),
    "duplicate_keys": _text(_with_duplicate_key),
    "not_json": _text(lambda text: "Here is what I found: the patient seems to be fine."),
    "hallucinate": _text(_hallucinated),
}
"""Strike answers in JSON only; other calls pass unharmed."""

FINISHES: dict[str, Spoiler] = {
    "finish_content_filter": _finished("content_filter"),
    "finish_tool_calls": _finished("tool_calls"),
    "finish_function_call": _finished("function_call"),
    "finish_insufficient_resource": _finished("insufficient_system_resource"),
    "finish_abort": _finished("abort"),
    "finish_null": _finished(None),
    "finish_context_window": _finished("model_context_window_exceeded"),
    "finish_pause_turn": _finished("pause_turn"),
    "finish_stop_sequence": _finished("stop_sequence"),
}
"""Every other way to finish, in the word of the vendor that has it; the other protocol says it as a gateway would."""

SPOILERS: dict[str, Spoiler] = {
    **RECORD_SPOILERS,
    **FINISHES,
    "finish_length": lambda reply: replace(reply, text=_cut(reply.text), finish="length"),
    "refusal": lambda reply: replace(reply, text="I can't help with that.", finish="refusal"),
    "empty_content": _text(lambda text: ""),
    "whitespace_content": _text(lambda text: " \n \n"),
    "null_content": lambda reply: replace(reply, text="", shows_text=False),
    "thinking_first": lambda reply: replace(reply, thinking="The patient speaks first of the symptoms, so"),
    "missing_usage": lambda reply: replace(reply, shows_usage=False),
    "small_prompt_tokens": lambda reply: replace(reply, prompt_tokens=3),
    "wrong_served_model": lambda reply: replace(reply, served_model="another-model-0"),
}
