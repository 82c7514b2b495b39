"""Refusals by name: nothing is done and nothing is billed. Each in the words of the vendor that is known for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal

from medkd.simulator.replies import VendorError

Protocol = Literal["openai", "anthropic"]

SHORT_WAIT = "0.8"
"""Seconds; long enough to tell a call that did not wait from one that was already on its way."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a refusal may take up of the call it answers."""

    protocol: Protocol
    key: str
    """As the request carried it."""
    text: str
    """The user's last message."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    error: Callable[[Asked], VendorError]
    wait_seconds: float = 0.0
    """The wait that it orders."""
    ends: bool = False
    """Terminal: whoever calls again has not understood."""
    records_only: bool = False
    """Strikes calls for JSON only."""


_HTML = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def _always(**error: Any) -> Callable[[Asked], VendorError]:
    return lambda asked: VendorError(**error)


def _by_protocol(openai: Mapping[str, Any], anthropic: Mapping[str, Any]) -> Callable[[Asked], VendorError]:
    return lambda asked: VendorError(**(openai if asked.protocol == "openai" else anthropic))


# --- waits ------------------------------------------------------------------------------------------------------------


def _rate_limit(text: str = "", **headers: str) -> Callable[[Asked], VendorError]:
    message = f"Rate limit reached for requests.{text}"
    return _always(status=429, message=message, kind="requests", code="rate_limit_exceeded", headers=headers)


def _rate_limit_date(asked: Asked) -> VendorError:
    now = int(time.time())
    headers = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 2, usegmt=True)}
    return _rate_limit(**headers)(asked)


def _rate_limit_reset(asked: Asked) -> VendorError:
    """The wait stands only in the headers of the limit that is used up."""
    if asked.protocol == "openai":
        return _rate_limit(**{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"})(asked)
    now = int(time.time())
    reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 2))
    limits = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": reset}
    return _rate_limit(**{"date": formatdate(now, usegmt=True), **limits})(asked)


def _too_large(limit: int, requested: int, text: str) -> Callable[[Asked], VendorError]:
    limits = f"tokens per minute (TPM): Limit {limit}, Requested {requested}, {text}"
    message = f"Request too large for model `clinic-1` in organization `org_01clinic` on {limits}"
    return _always(status=413, message=message, kind="tokens", code="rate_limit_exceeded")


_WAITS = {
    "rate_limit": Refusal(error=_rate_limit(" Please try again in 1s.", **{"retry-after": "1"}), wait_seconds=1.0),
    "rate_limit_ms": Refusal(error=_rate_limit(**{"retry-after-ms": "800"}), wait_seconds=0.8),
    "rate_limit_date": Refusal(error=_rate_limit_date, wait_seconds=2.0),
    "rate_limit_text": Refusal(error=_rate_limit(f" Please try again in {SHORT_WAIT}s."), wait_seconds=0.8),
    "rate_limit_reset": Refusal(error=_rate_limit_reset, wait_seconds=2.0),
    "rate_limit_none": Refusal(error=_rate_limit()),
    "rate_limit_junk": Refusal(error=_rate_limit(**{"retry-after": "soon"})),
    "rate_limit_long": Refusal(error=_rate_limit(**{"retry-after": "7200"}), wait_seconds=7200.0),
    "slow_down": Refusal(error=_always(status=503, message="Please slow down.", kind="server_error", code="slow_down")),
    "overloaded": Refusal(
        error=_by_protocol(
            {"status": 503, "message": "That model is overloaded.", "kind": "overloaded_error", "code": "overloaded"},
            {"status": 529, "message": "Overloaded"},
        )
    ),
    "overloaded_529": Refusal(error=_always(status=529, message="Overloaded", kind="overloaded_error")),
    "overloaded_text": Refusal(
        error=_always(status=429, message="", body='{"error": "Model is overloaded", "error_type": "overloaded"}')
    ),
    "capacity_498": Refusal(error=_always(status=498, message="Flex tier capacity exceeded.", code="capacity_exceeded")),
    "loading": Refusal(error=_always(status=503, message="Loading model", kind="unavailable_error", code=503)),
    "too_large_wait": Refusal(error=_too_large(8000, 2013, f"please try again in {SHORT_WAIT}s."), wait_seconds=0.8),
    "wrapped_429": Refusal(
        error=_always(status=500, message=f"Upstream: please try again in {SHORT_WAIT}s.", extra={"code": 429}), wait_seconds=0.8
    ),
    "rate_limit_in_200": Refusal(
        error=_always(
            status=200,
            message=f"Please try again in {SHORT_WAIT}s.",
            kind="requests",
            code="rate_limit_exceeded",
            extra={"type": "rate_limit_error"},
        ),
        wait_seconds=0.8,
    ),
}

# --- ends -------------------------------------------------------------------------------------------------------------


def _ends(error: Callable[[Asked], VendorError]) -> Refusal:
    return Refusal(error=error, ends=True)


def _money_code(code: str, status: int = 429) -> Refusal:
    """Anthropic and gateways that speak like it tell the code in `details`."""
    message = "The account's limit is used up."
    return _ends(
        _by_protocol(
            {"status": status, "message": message, "kind": code, "code": code},
            {"status": status, "message": message, "extra": {"details": {"error_code": code}}},
        )
    )


def _bad_key(asked: Asked) -> VendorError:
    if asked.protocol == "anthropic":
        return VendorError(status=401, message="invalid x-api-key")
    given = f"{asked.key[:8]}****{asked.key[-4:]}" if asked.key else "sk-abcde****wxyz"
    return VendorError(status=401, message=f"Incorrect API key provided: {given}.", code="invalid_api_key")


def _key_echoed(asked: Asked) -> VendorError:
    """As gateways do: the whole key, as plain text."""
    return VendorError(status=401, message="", body=f"Incorrect API key provided: {asked.key}.", content_type="text/plain")


_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_LOW_CREDIT = "Your credit balance is too low to access the API."

_ENDS = {
    "money": _ends(
        _by_protocol(
            {"status": 429, "message": _QUOTA, "kind": "insufficient_quota", "code": "insufficient_quota"},
            {"status": 402, "message": _LOW_CREDIT},
        )
    ),
    "insufficient_balance": _ends(
        _always(status=402, message="Insufficient Balance", kind="unknown_error", code="invalid_request_error")
    ),
    "credit_too_low": _ends(_always(status=400, message=_LOW_CREDIT)),
    "usage_limits": _ends(_always(status=400, message="You have reached your specified API usage limits.")),
    "credit_exhausted": _money_code("credit_balance_exhausted"),
    "spend_limit": _money_code("enforced_spend_limit_reached"),
    "project_spend_limit": _money_code("project_spend_limit_exceeded"),
    "monthly_usage_limit": _money_code("monthly_usage_limit_exceeded"),
    "spend_cap": _money_code("spend_cap_reached"),
    "billing_error": _money_code("billing_error", 400),
    "blocked_access": _money_code("blocked_api_access", 400),
    "money_in_200": _ends(_always(status=200, message=_QUOTA, code="insufficient_quota", extra={"code": "insufficient_quota"})),
    "bad_key": _ends(_bad_key),
    "key_echoed": _ends(_key_echoed),
    "governor": _ends(_always(status=401, message="", body="Authentication Fails (governor)", content_type="text/plain")),
    "forbidden": _ends(_always(status=403, message="Your organization has been disabled.", code="permission_denied")),
    "dead_model": _ends(
        _always(status=404, message="The model does not exist or you do not have access to it.", code="model_not_found")
    ),
    "decommissioned": _ends(
        _by_protocol(
            {"status": 400, "message": "The model has been decommissioned.", "code": "model_decommissioned"},
            {"status": 404, "message": "model: clinic-0"},
        )
    ),
    "unsupported_value": _ends(
        _by_protocol(
            {
                "status": 400,
                "message": "Unsupported value: 'temperature' does not support 0.2 with this model.",
                "param": "temperature",
                "code": "unsupported_value",
            },
            {"status": 400, "message": "`temperature` is deprecated for this model."},
        )
    ),
    "not_to_retry": _ends(
        _always(status=429, message="The monthly limit is reached.", kind="requests", headers={"x-should-retry": "false"})
    ),
    "redirect": _ends(_always(status=307, message="", body="", headers={"location": "http://127.0.0.2:9/v1/elsewhere"})),
}

# --- single calls -----------------------------------------------------------------------------------------------------


def _echoed_422(asked: Asked) -> VendorError:
    """A validation error that quotes the prompt, as FastAPI's servers do."""
    detail = [{"type": "value_error", "loc": ["body", "messages", 1, "content"], "msg": "Value error", "input": asked.text}]
    return VendorError(status=422, message="", body={"detail": detail})


_SINGLE = {
    "too_large": Refusal(error=_too_large(8000, 10013, "please reduce your message size and try again.")),
    "too_long": Refusal(
        error=_by_protocol(
            {
                "status": 400,
                "message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
                "kind": "BadRequestError",
                "code": 400,
            },
            {"status": 400, "message": "prompt is too long: 210000 tokens > 200000 maximum"},
        )
    ),
    "content_filter": Refusal(
        error=_always(status=400, message="The prompt was filtered.", code="content_filter", extra={"code": "content_filter"})
    ),
    "json_validate_failed": Refusal(
        error=_always(
            status=400,
            message="Failed to generate JSON. Please adjust your prompt.",
            code="json_validate_failed",
            extra={"code": "json_validate_failed", "failed_generation": '{"patient_details": {"name": '},
        ),
        records_only=True,
    ),
    "prompt_echoed": Refusal(error=_echoed_422),
    "not_to_retry_500": Refusal(error=_always(status=500, message="Internal.", headers={"x-should-retry": "false"})),
    "to_retry": Refusal(error=_always(status=400, message="Try once more.", headers={"x-should-retry": "true"})),
    "http_500": Refusal(error=_always(status=500, message="The server had an error.", kind="server_error")),
    "timeout_408": Refusal(error=_always(status=408, message="Request timeout.", kind="timeout")),
    "conflict_409": Refusal(error=_always(status=409, message="Conflict.", kind="conflict_error")),
    "gateway_504": Refusal(error=_always(status=504, message="Gateway timeout.", kind="timeout_error")),
    "html_502": Refusal(error=_always(status=502, message="", body=_HTML.format("502 Bad Gateway"), content_type="text/html")),
    "html_403": Refusal(error=_always(status=403, message="", body=_HTML.format("403 Forbidden"), content_type="text/html")),
    "error_in_200": Refusal(error=_always(status=200, message="Something went wrong.", kind="internal", code="internal")),
}

REFUSALS: dict[str, Refusal] = {**_WAITS, **_ENDS, **_SINGLE}
