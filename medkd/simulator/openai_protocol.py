"""OpenAI chat completions: what a request must hold, and the shapes of replies, errors and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medkd.simulator.clinic import Question
from medkd.simulator.json_schemas import strictness_problem
from medkd.simulator.limits import Allowance
from medkd.simulator.replies import Call, Reply, VendorError, bounded, message_text, optional, required

# Replies are pure in the request, so they all claim the same moment.
CREATED = 1790000000

_ROLES = ("system", "developer", "user", "assistant", "tool")


def check_key(headers: Mapping[str, str], api_key: str | None) -> None:
    """VendorError 401 unless the Bearer key is the expected one; None accepts everybody."""
    given = headers.get("authorization", "").removeprefix("Bearer ").strip()
    if api_key is None or given == api_key:
        return
    message = f"Incorrect API key provided: {given[:8]}****{given[-4:]}." if given else "You didn't provide an API key."
    raise VendorError(status=401, message=message, code="invalid_api_key")


def parse_call(body: Mapping[str, Any], headers: Mapping[str, str]) -> Call:
    """The call a request body makes; VendorError 400 where the vendor would refuse it."""
    model = required(body, "model", str)
    messages = tuple(_message(index, message) for index, message in enumerate(required(body, "messages", list)))
    if not messages:
        raise VendorError(status=400, message="Invalid 'messages': empty array.", param="messages", code="empty_array")
    for name, highest in (("temperature", 2), ("top_p", 1)):
        bounded(body, name, 0, highest)
    if body.get("stream"):
        raise VendorError(status=400, message="Streaming is not offered here.", param="stream", code="unsupported_value")
    wants_json, schema = _response_format(optional(body, "response_format", dict), messages)
    question = Question(messages=messages, seed=optional(body, "seed", int), json_schema=schema, wants_json=wants_json)
    return Call(question=question, model=model, reply_limit=_reply_limit(body))


def _message(index: int, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        problem = f"Invalid 'messages[{index}].role': expected one of {', '.join(_ROLES)}."
        raise VendorError(status=400, message=problem, param=f"messages[{index}].role", code="invalid_value")
    return message["role"], message_text(message.get("content"), f"messages[{index}].content")


def _reply_limit(body: Mapping[str, Any]) -> int | None:
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise VendorError(
            status=400, message="Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        )
    for name in ("max_completion_tokens", "max_tokens"):
        limit = optional(body, name, int)
        if limit is not None:
            bounded(body, name, 1, 1_000_000)
            return int(limit)
    return None


def _response_format(wanted: Mapping[str, Any] | None, messages: Sequence[tuple[str, str]]) -> tuple[bool, dict[str, Any] | None]:
    """(JSON wanted, schema or None) as `response_format` says."""
    kind = wanted["type"] if wanted and "type" in wanted else "text"
    if kind == "text":
        return False, None
    if kind == "json_object":
        if not any("json" in text.lower() for _, text in messages):
            message = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
            raise VendorError(status=400, message=message, param="messages")
        return True, None
    if kind != "json_schema":
        message = f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'."
        raise VendorError(status=400, message=message, param="response_format.type", code="invalid_value")
    assert wanted is not None
    named = required(wanted, "json_schema", dict)
    required(named, "name", str)
    schema: dict[str, Any] = required(named, "schema", dict)
    problem = strictness_problem(schema, "schema") if named.get("strict") else None
    if problem:
        message = f"Invalid schema for response_format '{named['name']}': {problem}"
        raise VendorError(status=400, message=message, param="response_format", code="invalid_json_schema")
    return True, schema


def render_reply(call: Call, reply: Reply, digest: str) -> dict[str, Any]:
    """The body of a 200. `digest` identifies the request, so that equal requests get equal bytes."""
    refused = reply.finish == "refusal"
    content = None if refused or not reply.shows_text else reply.text
    message = {"role": "assistant", "content": content, "refusal": reply.text if refused else None}
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    finish = reply.finish_word[0] if reply.finish_word else "stop" if refused else reply.finish
    body: dict[str, Any] = {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": CREATED,
        "model": reply.served_model or call.model,
        "system_fingerprint": "fp_clinic0001",
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": finish},
        ],
    }
    if reply.shows_usage:
        body["usage"] = {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
    return body


def render_error(error: VendorError, request_id: str) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code, **error.extra}}


def render_models(models: Sequence[str]) -> dict[str, Any]:
    return {"object": "list", "data": [render_model(model) for model in models]}


def render_model(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": CREATED, "owned_by": "clinic"}


def reply_headers(request_id: str, allowance: Allowance) -> dict[str, str]:
    """`x-request-id` and the two groups of limit headers; resets are durations such as `1.2s`."""
    headers = {"x-request-id": request_id}
    for name, state in (("requests", allowance.requests), ("tokens", allowance.tokens)):
        if state is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(state.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(state.remaining)
            headers[f"x-ratelimit-reset-{name}"] = f"{state.reset_seconds:.3f}s"
    return headers
