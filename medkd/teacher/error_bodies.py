"""Errors as teachers, gateways and proxies write them, brought to one shape.

Met: {"error": {message, type, param, code}} with a text or integer code · {"type": "error", "error": {type, message, details}} ·
{"error": "text", "error_type"} · {"detail": "text" | [{loc, msg, input}]} · {"message"} · {"object": "error", ..} · the same
as text inside a message · lists of one · plain text, HTML, nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medkd.teacher.protocols import NotAReply, identifier, parse

_MAX_MESSAGE = 20_000
REQUEST_FIELDS = (
    "model", "messages", "system", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop", "n",
    "response_format", "output_config", "tools", "tool_choice", "thinking", "reasoning_effort", "service_tier", "logprobs",
    "top_logprobs", "stream", "metadata", "user", "store", "speed",
)  # fmt: skip
"""Fields of a request that a message may name: other words that an error quotes may come from a prompt."""
_FIELD = re.compile(r"[A-Za-z_][\w.\[\]-]{0,79}", re.ASCII)
# Only a name that is complained about: other quoted words may come from a prompt.
_REFUSED_FIELD = re.compile(r"['\"`]([A-Za-z_][\w.]{0,79})['\"`]\s+(?:is|does|was|not)\b", re.ASCII)
_NEVER_FITS = re.compile(r"limit[:\s]+(\d{1,12})\b.{0,200}?requested[:\s]+(\d{1,12})\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ErrorBody:
    """What an error body says."""

    status: int = 0
    """The status code inside the body; 0: none."""
    codes: tuple[str, ...] = ()
    """Code and type, lower case, the most telling first."""
    message: str = ""
    """Free text; may quote keys and prompts, so it is searched and never shown."""
    field: str = ""
    """The request field complained about, if it looks like one."""

    @property
    def requested_over_limit(self) -> bool:
        """The message says that the request asks for more than the limit ever allows."""
        found = _NEVER_FITS.search(self.message)
        return found is not None and int(found[2]) > int(found[1])


def is_html(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a proxy's or an ingress's page came in place of the teacher's answer."""
    start = body[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html")) or "text/html" in headers.get("content-type", "").lower()


def holds_error(payload: Any) -> bool:
    """Whether a parsed body is an error by its shape, whatever the status around it."""
    payload = _only(payload)
    if not isinstance(payload, dict):
        return False
    return bool(payload.get("error")) or payload.get("object") == "error" or payload.get("type") == "error"


def error_in(body: bytes, payload: Any = None) -> ErrorBody:
    """The error in `body`; `payload` is its JSON value where the caller has parsed it. Never raises."""
    if payload is None:
        try:
            payload = parse(body)
        except NotAReply:
            return ErrorBody(message=body[:_MAX_MESSAGE].decode(errors="replace"))
    payload = _only(payload)
    if not isinstance(payload, dict):
        return ErrorBody(message=payload[:_MAX_MESSAGE] if isinstance(payload, str) else "")
    return _from_object(payload)


def _only(payload: Any) -> Any:
    """What a list of one holds: some gateways wrap an error like this."""
    return payload[0] if isinstance(payload, list) and len(payload) == 1 else payload


def _from_object(payload: dict[str, Any]) -> ErrorBody:
    error = payload.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else {}
    message = _message(payload, error)
    wrapped = _wrapped(message)
    named = [*_names(inner), *(_names(payload) if not inner else ()), *(wrapped.codes if wrapped else ())]
    numbers = [_number(inner.get(name)) for name in ("code", "status")] + [_number(payload.get("code"))]
    return ErrorBody(
        status=(wrapped.status if wrapped else 0) or next((number for number in numbers if number), 0),
        codes=tuple(dict.fromkeys(named)),
        message=message[:_MAX_MESSAGE],
        field=_field(inner or payload, message),
    )


def _names(error: dict[str, Any]) -> Iterator[str]:
    """The error's textual codes, most telling first; numbers are statuses, not names."""
    details = error.get("details")
    detail = details.get("error_code") if isinstance(details, dict) else None
    for value in (detail, error.get("code"), error.get("type"), error.get("error_type")):
        name = identifier(value).lower()
        if name and not name.isdigit() and name != "error":
            yield name


def _message(payload: dict[str, Any], error: Any) -> str:
    """All texts the body offers as its message. What it quotes of the request (`input`) is left out."""
    inner = error.get("message") if isinstance(error, dict) else error
    detail = payload.get("detail")
    details = [entry.get("msg") for entry in detail if isinstance(entry, dict)] if isinstance(detail, list) else [detail]
    return "\n".join(text for text in (inner, payload.get("message"), *details) if isinstance(text, str))


def _wrapped(message: str) -> ErrorBody | None:
    """The error that a gateway quotes as JSON in its own message."""
    start = message.find("{")
    if start < 0 or len(message) > _MAX_MESSAGE:
        return None
    try:
        payload = parse(message[start : message.rfind("}") + 1].encode(errors="replace"))
    except NotAReply:
        return None
    # A quoted error quotes no further one that matters: its message is not looked into.
    inner = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(inner, dict):
        return None
    return ErrorBody(status=_number(inner.get("code")), codes=tuple(_names(inner)))


def _number(value: Any) -> int:
    text = identifier(value)
    return int(text) if text.isdigit() and len(text) == 3 else 0


def _field(error: dict[str, Any], message: str) -> str:
    """The field in `param`, in a validation error's location, or the quoted name that the message complains about."""
    detail = error.get("detail")
    entry = detail[0] if isinstance(detail, list) and detail else None
    location = entry.get("loc") if isinstance(entry, dict) else None
    path = ".".join(str(part) for part in location if part != "body") if isinstance(location, list) else ""
    quoted = (name for name in _REFUSED_FIELD.findall(message) if name.split(".")[0] in REQUEST_FIELDS)
    for candidate in (error.get("param"), path, next(quoted, None)):
        if isinstance(candidate, str) and _FIELD.fullmatch(candidate):
            return candidate
    return ""
