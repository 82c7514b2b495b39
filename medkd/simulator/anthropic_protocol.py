"""Anthropic messages: what a request must hold, and the shapes of replies, errors and lists.

Both generations are served. Under `anthropic-version` 2023-06-01 sampling parameters are taken; any later version refuses
them, and a last message from the assistant too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from medkd.simulator.clinic import Question
from medkd.simulator.json_schemas import strictness_problem
from medkd.simulator.limits import Allowance
from medkd.simulator.replies import Call, Reply, VendorError, bounded, message_text, optional, required

FIRST_VERSION = "2023-06-01"

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def check_key(headers: Mapping[str, str], api_key: str | None) -> None:
    """VendorError 401 unless `x-api-key` or the Bearer key is the expected one; None accepts everybody."""
    given = headers.get("x-api-key", "") or headers.get("authorization", "").removeprefix("Bearer ")
    if api_key is not None and given.strip() != api_key:
        raise VendorError(status=401, message="invalid x-api-key" if given else "x-api-key header is required")


def parse_call(body: Mapping[str, Any], headers: Mapping[str, str]) -> Call:
    """The call a request body makes; VendorError 400 where the vendor would refuse it."""
    version = headers.get("anthropic-version")
    if not version:
        raise VendorError(status=400, message="anthropic-version: header is required")
    model = required(body, "model", str)
    limit = required(body, "max_tokens", int)
    bounded(body, "max_tokens", 1, 1_000_000)
    messages = tuple(_message(index, message) for index, message in enumerate(required(body, "messages", list)))
    if not messages:
        raise VendorError(status=400, message="messages: at least one message is required")
    _check_sampling(body, version)
    if version != FIRST_VERSION and messages[-1][0] == "assistant":
        raise VendorError(status=400, message="This model does not support assistant message prefill.")
    if body.get("stream"):
        raise VendorError(status=400, message="stream: streaming is not offered here")
    system = body.get("system")
    if system is not None:
        messages = (("system", message_text(system, "system")), *messages)
    schema, tool = _structure(body)
    question = Question(messages=messages, seed=None, json_schema=schema, wants_json=schema is not None)
    return Call(question=question, model=model, reply_limit=limit, tool=tool)


def _message(index: int, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
        raise VendorError(status=400, message=f"messages.{index}.role: Input should be 'user' or 'assistant'")
    return message["role"], message_text(message.get("content"), f"messages.{index}.content")


def _check_sampling(body: Mapping[str, Any], version: str) -> None:
    for name in ("temperature", "top_p", "top_k"):
        if name in body and version != FIRST_VERSION:
            raise VendorError(status=400, message=f"`{name}` is deprecated for this model.")
    bounded(body, "temperature", 0, 1)
    bounded(body, "top_p", 0, 1)


def _structure(body: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """(schema, tool name): from `output_config.format`, or from a forced tool."""
    wanted = (optional(body, "output_config", dict) or {}).get("format")
    if wanted is not None:
        if wanted.get("type") != "json_schema":
            raise VendorError(status=400, message="output_config.format.type: Input should be 'json_schema'")
        schema: dict[str, Any] = required(wanted, "schema", dict)
        problem = strictness_problem(schema, "output_config.format.schema")
        if problem:
            raise VendorError(status=400, message=problem)
        return schema, None
    choice = optional(body, "tool_choice", dict) or {}
    if choice.get("type") != "tool":
        return None, None
    for tool in optional(body, "tools", list) or []:
        if tool.get("name") == choice.get("name"):
            return required(tool, "input_schema", dict), str(tool["name"])
    raise VendorError(status=400, message=f"Tool '{choice.get('name')}' not found in provided tools")


def render_reply(call: Call, reply: Reply, digest: str) -> dict[str, Any]:
    """The body of a 200. `digest` identifies the request, so that equal requests get equal bytes."""
    stop_reason = {"stop": "tool_use" if call.tool else "end_turn", "length": "max_tokens", "refusal": "refusal"}[reply.finish]
    body: dict[str, Any] = {
        "id": f"msg_{digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": reply.served_model or call.model,
        "content": _blocks(call, reply, digest),
        "stop_reason": reply.finish_word[0] if reply.finish_word else stop_reason,
        "stop_sequence": None,
    }
    if reply.finish == "refusal":
        body["stop_details"] = {"type": "refusal", "category": None, "explanation": reply.text}
    if reply.shows_usage:
        body["usage"] = {
            "input_tokens": reply.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": reply.completion_tokens,
        }
    return body


def _blocks(call: Call, reply: Reply, digest: str) -> list[dict[str, Any]]:
    if reply.finish == "refusal" or not reply.shows_text:
        return []
    thinking = [{"type": "thinking", "thinking": reply.thinking, "signature": digest[:24]}] if reply.thinking else []
    return [*thinking, _answer_block(call, reply, digest)]


def _answer_block(call: Call, reply: Reply, digest: str) -> dict[str, Any]:
    if call.tool is None:
        return {"type": "text", "text": reply.text}
    return {"type": "tool_use", "id": f"toolu_{digest[:24]}", "name": call.tool, "input": _tool_input(reply.text)}


def _tool_input(text: str) -> dict[str, Any]:
    """What a tool's answer holds: an object always, an empty one when the text was cut or spoilt."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def render_error(error: VendorError, request_id: str) -> dict[str, Any]:
    kind = _KINDS.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message, **error.extra}, "request_id": request_id}


def render_models(models: Sequence[str]) -> dict[str, Any]:
    data = [render_model(model) for model in models]
    return {"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]}


def render_model(model: str) -> dict[str, Any]:
    return {"type": "model", "id": model, "display_name": model, "created_at": "2026-09-21T00:00:00Z"}


def reply_headers(request_id: str, allowance: Allowance) -> dict[str, str]:
    """`request-id` and the three groups of limit headers; resets are moments in RFC 3339."""
    headers = {"request-id": request_id}
    groups = (("requests", allowance.requests), ("input-tokens", allowance.tokens), ("output-tokens", allowance.tokens))
    for name, state in groups:
        if state is not None:
            reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + state.reset_seconds))
            headers[f"anthropic-ratelimit-{name}-limit"] = str(state.limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(state.remaining)
            headers[f"anthropic-ratelimit-{name}-reset"] = reset
    return headers
