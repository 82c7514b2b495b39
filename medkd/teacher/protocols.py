"""The two wire protocols, purely: a `Request` to path, headers and body, and a body back to a `Reply`.

OpenAI chat completions (OpenAI, DeepSeek, Groq, vLLM, TGI, llama.cpp, Ollama) and Anthropic messages.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from medkd.config import TeacherConfig
from medkd.teacher import json_schemas
from medkd.teacher.prompts import Request

Protocol = Literal["openai", "anthropic"]
Finish = Literal["stop", "length", "refusal", "aborted"]


_MOST_TOKENS = 10**9


_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class NotAReply(ValueError):  # noqa: N818 - a finding about a body, never seen by users
    """The body of a 200 is not JSON or lacks what every completion has."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one call as the teacher counted them; the same meaning for both protocols."""

    prompt_tokens: int
    """All input tokens, cached ones included."""
    cached_tokens: int = 0
    """Of these, read from the provider's cache."""
    cache_write_tokens: int = 0
    """Of these, written to the provider's cache."""
    completion_tokens: int
    """All output tokens, reasoning included."""
    reasoning_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a teacher answered."""

    text: str
    """Always encodable as UTF-8; empty where the teacher said nothing."""
    finish: Finish
    """`stop` alone is a whole answer; `aborted` covers every reason that is not known."""
    served_model: str
    request_id: str
    fingerprint: str
    usage: Usage | None
    """None: the teacher did not say."""


def encode(teacher: TeacherConfig, request: Request) -> tuple[str, bytes]:
    """The path below the base URL and the body of the call; only what the configuration sets is sent."""
    fields = _openai_fields(teacher, request) if teacher.protocol == "openai" else _anthropic_fields(teacher, request)
    path = "/chat/completions" if teacher.protocol == "openai" else "/messages"
    return path, _write({**fields, **teacher.extra_body}).encode()


def list_path(teacher: TeacherConfig) -> str:
    """The path of the model list below the base URL, in one page."""
    return "/models?limit=1000" if teacher.protocol == "anthropic" else "/models"


def headers(teacher: TeacherConfig, key: str | None) -> dict[str, str]:
    """Headers of every call to `teacher`. `key` must be stripped and printable."""
    found = {"Content-Type": "application/json", "Accept": "application/json"}
    if key and teacher.auth == "bearer":
        found["Authorization"] = f"Bearer {key}"
    elif key and teacher.auth == "x-api-key":
        found["x-api-key"] = key
    if teacher.protocol_version:
        found["anthropic-version"] = teacher.protocol_version
    return {**teacher.extra_headers, **found}


def parse(body: bytes) -> Any:
    """The JSON value of a body, whatever charset its header claims; leading blank lines and a byte order mark are fine."""
    try:
        return json.loads(body.lstrip(b" \t\r\n").removeprefix(b"\xef\xbb\xbf").decode())
    except (ValueError, RecursionError):
        # Raised anew outside, so that no decoder's exception carries the body along.
        pass
    raise NotAReply("not JSON")


def decode(teacher: TeacherConfig, body: bytes) -> Reply:
    """The reply in the body of a 200; NotAReply where there is none."""
    return reply_in(teacher.protocol, parse(body))


def reply_in(protocol: Protocol, payload: Any) -> Reply:
    """The reply in a parsed body; NotAReply where it lacks the `choices` or `content` of a completion."""
    if not isinstance(payload, dict):
        raise NotAReply("not an object")
    return _openai_reply(payload) if protocol == "openai" else _anthropic_reply(payload)


def model_ids(payload: Any) -> list[str]:
    """The ids in a parsed model list of either protocol; NotAReply where it is none."""
    listed = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(listed, list):
        raise NotAReply("no model list")
    return [model["id"] for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]


def _openai_fields(teacher: TeacherConfig, request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": teacher.model,
        "messages": [{"role": message.role, "content": sayable(message.text)} for message in request.messages],
        teacher.reply_limit_field: request.reply_limit,
    }
    if request.temperature is not None:
        fields["temperature"] = request.temperature
    if request.seed is not None:
        fields["seed"] = request.seed
    if request.json_schema is not None and teacher.structured_output == "json_object":
        fields["response_format"] = {"type": "json_object"}
        _say_json(fields["messages"])
    elif request.json_schema is not None and teacher.structured_output == "json_schema":
        named = {"name": request.schema_name, "strict": True, "schema": json_schemas.strict(request.json_schema)}
        fields["response_format"] = {"type": "json_schema", "json_schema": named}
    return fields


def _say_json(messages: list[dict[str, str]]) -> None:
    """Put the word JSON into the last message unless one has it: `json_object` is refused without."""
    if not any("json" in message["content"].lower() for message in messages):
        messages[-1]["content"] += "\n\nAnswer in JSON."


def _anthropic_fields(teacher: TeacherConfig, request: Request) -> dict[str, Any]:
    spoken = [message for message in request.messages if message.role != "system"]
    system = "\n\n".join(message.text for message in request.messages if message.role == "system")
    fields: dict[str, Any] = {
        "model": teacher.model,
        "max_tokens": request.reply_limit,
        "messages": [{"role": message.role, "content": sayable(message.text)} for message in spoken],
    }
    if system:
        fields["system"] = sayable(system)
    if request.temperature is not None:
        fields["temperature"] = request.temperature
    if request.json_schema is not None and teacher.structured_output == "output_config":
        fields["output_config"] = {"format": {"type": "json_schema", "schema": json_schemas.unbounded(request.json_schema)}}
    elif request.json_schema is not None and teacher.structured_output == "tool":
        fields["tools"] = [{"name": request.schema_name, "input_schema": request.json_schema}]
        fields["tool_choice"] = {"type": "tool", "name": request.schema_name}
    return fields


_OPENAI_FINISH: dict[Any, Finish] = {"stop": "stop", "length": "length", "content_filter": "refusal"}
_ANTHROPIC_FINISH: dict[Any, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


def _openai_reply(payload: dict[str, Any]) -> Reply:
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NotAReply("no choices")
    refused = isinstance(message.get("refusal"), str) and message["refusal"].strip()
    return Reply(
        text=_text(message.get("content")),
        finish="refusal" if refused else _finish(_OPENAI_FINISH, choice.get("finish_reason")),
        served_model=identifier(payload.get("model")),
        request_id=identifier(payload.get("id")),
        fingerprint=identifier(payload.get("system_fingerprint")),
        usage=_openai_usage(payload.get("usage")),
    )


def _anthropic_reply(payload: dict[str, Any]) -> Reply:
    blocks = payload.get("content")
    if not isinstance(blocks, list):
        raise NotAReply("no content")
    tool = next((block["input"] for block in blocks if _is_block(block, "tool_use") and "input" in block), None)
    text = _text(blocks) if tool is None else sayable(json.dumps(tool, ensure_ascii=False))
    return Reply(
        text=text,
        finish=_finish(_ANTHROPIC_FINISH, payload.get("stop_reason")),
        served_model=identifier(payload.get("model")),
        request_id=identifier(payload.get("id")),
        fingerprint="",
        usage=_anthropic_usage(payload.get("usage")),
    )


def _finish(known: dict[Any, Finish], reason: Any) -> Finish:
    return known.get(reason, "aborted") if isinstance(reason, str) else "aborted"


def _is_block(block: Any, kind: str) -> bool:
    return isinstance(block, dict) and block.get("type") == kind


def _text(content: Any) -> str:
    """The text of a message's content: a string, null, or a list of typed blocks of which only text ones count."""
    if isinstance(content, list):
        texts = [block.get("text") for block in content if _is_block(block, "text")]
        content = "".join(text for text in texts if isinstance(text, str))
    return sayable(content) if isinstance(content, str) else ""


def _openai_usage(usage: Any) -> Usage | None:
    prompt, completion, total = (_count(usage, f"{kind}_tokens") for kind in ("prompt", "completion", "total"))
    if prompt is None or (completion is None and total is None):
        return None
    # Some servers leave reasoning out of the completion, and bill it: the total then is the larger one.
    completion = max(completion or 0, (total or 0) - prompt)
    details = usage.get("prompt_tokens_details")
    # DeepSeek says the cached part in a field of its own, gateways in front of Anthropic by Anthropic's names.
    cached = _first_count(details, "cached_tokens") or _first_count(usage, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    written = _first_count(details, "cache_write_tokens") or _first_count(usage, "cache_creation_input_tokens")
    cached = min(cached, prompt)
    return Usage(
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_write_tokens=min(written, prompt - cached),
        completion_tokens=completion,
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0,
    )


def _anthropic_usage(usage: Any) -> Usage | None:
    fresh, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if fresh is None or completion is None:
        return None
    read, written = _count(usage, "cache_read_input_tokens") or 0, _count(usage, "cache_creation_input_tokens") or 0
    details = usage.get("output_tokens_details")
    return Usage(
        prompt_tokens=fresh + read + written,
        cached_tokens=read,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=_count(details, "thinking_tokens") or _count(details, "reasoning_tokens") or 0,
    )


def _count(fields: Any, name: str) -> int | None:
    """A count of tokens; None for anything that is none, absurdly many included."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _first_count(fields: Any, *names: str) -> int:
    return next((found for name in names if (found := _count(fields, name))), 0)


_IDENTIFIER = re.compile(r"[\w./:@+-]{1,200}", re.ASCII)


def identifier(value: Any) -> str:
    """A teacher's id, name or code if it looks like one, else empty: free text from outside never reaches a log this way."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if _IDENTIFIER.fullmatch(text) else ""


def sayable(text: str) -> str:
    """The text with surrogates that have no partner replaced: JSON can carry them, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
