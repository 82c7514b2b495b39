"""What both protocols have in common: a parsed call, its reply, a refusal, and counting tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medkd.simulator.clinic import Question

Finish = Literal["stop", "length", "refusal"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One completion asked for. `reply_limit` is in tokens, None for as many as it takes."""

    question: Question
    model: str
    reply_limit: int | None
    tool: str | None = None
    """Name of the tool whose input the answer has to be (Anthropic's older structured output)."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One completion given. Tokens are billed whether or not `shows_usage` tells them."""

    text: str
    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    shows_usage: bool = True
    finish_word: tuple[str | None] | None = None
    """The vendor's word for how it finished, in place of the one that `finish` has in its protocol; null for (None,)."""
    shows_text: bool = True
    thinking: str = ""
    """Reasoning that is told before the answer."""
    served_model: str = ""
    """In place of the model asked for."""


@dataclass(kw_only=True)
class VendorError(Exception):
    """A request the vendor refuses, in the words both protocols render; nothing is billed for it."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    """`error.type`, which Anthropic derives from the status instead."""
    code: str | int | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the error object, over the usual ones."""
    body: str | Mapping[str, Any] | None = None
    """The whole body, text or JSON, where it has none of the protocol's shapes."""
    content_type: str = "application/json"


def count_tokens(text: str) -> int:
    """Tokens of a text: a quarter of its characters, rounded up."""
    return math.ceil(len(text) / 4)


def cut_to_limit(text: str, reply_limit: int | None) -> tuple[str, Finish]:
    """The text as far as the reply limit allows, and how it ended."""
    if reply_limit is None or count_tokens(text) <= reply_limit:
        return text, "stop"
    return text[: 4 * reply_limit], "length"


def required(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A required field of the body with the right JSON type; VendorError 400 otherwise."""
    if name not in body:
        raise VendorError(status=400, message=f"{name}: Field required", param=name, code="missing_required_parameter")
    return optional(body, name, kind)


def optional(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of the body with the right JSON type, or None; VendorError 400 otherwise."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise VendorError(status=400, message=f"Invalid type for '{name}'.", param=name, code="invalid_type")
    return value


def bounded(body: Mapping[str, Any], name: str, lowest: float, highest: float) -> Any:
    """A number of the body within bounds, or None; VendorError 400 otherwise."""
    value = optional(body, name, (int, float))
    if value is not None and not lowest <= value <= highest:
        message = f"Invalid '{name}': expected a value from {lowest} to {highest}, but got {value} instead."
        raise VendorError(status=400, message=message, param=name, code="invalid_value")
    return value


def message_text(content: Any, place: str) -> str:
    """The text of a message: a string, or the joined text blocks of a list; VendorError 400 otherwise."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(block, dict) and isinstance(block.get("text"), str) for block in content):
        return "".join(block["text"] for block in content)
    raise VendorError(status=400, message=f"Invalid type for '{place}': expected a string or text blocks.", param=place)
