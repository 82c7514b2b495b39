"""What to do about an answer or a failure: one pure, total function of (status, headers, body).

    ok      use the reply                          retry   send this call again
    stop    this teacher is over for the run       repair  ask again with something changed
    wait    pause every call to this teacher       reject  this record cannot be had, for `reason`

Rules are tried in order, the first match wins. Nothing a verdict carries is free text from outside: codes, ids and field
names are kept only if they look like identifiers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from medkd.teacher.error_bodies import ErrorBody, error_in, holds_error, is_html
from medkd.teacher.hints import try_again_seconds, wait_hint
from medkd.teacher.protocols import NotAReply, Protocol, Reply, model_ids, parse, reply_in

Kind = Literal["ok", "stop", "wait", "retry", "repair", "reject"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    kind: Kind
    reason: str
    """One word for logs, columns and messages; for `stop` one of configuration, money, key, permission, model, request, prompt,
    limit."""
    status: int = 0
    """HTTP status; 0 where no answer came."""
    code: str = ""
    """The teacher's own error code, if it looks like one."""
    field: str = ""
    """The request field that the teacher complains about, where it names one."""
    spent: bool = False
    """The call may have been done and billed although its answer cannot be used."""
    wait_seconds: float | None = None
    """The teacher's own hint; None: it gave none."""
    reply: Reply | None = None
    """Present whenever the body held one, whatever the verdict."""
    models: tuple[str, ...] = ()
    """Ids of a model list."""
    request_id: str = ""
    """The teacher's id of this call, for its support."""
    stop_after: int | None = None
    """Not the first of its kind but this many in a row are a stop: retries of one call, or rejected records from the start."""
    stop_reason: str = ""
    """The reason of that stop."""


MAX_PROXY_RETRIES = 2
"""Retries of a 403 or 404 whose HTML page shows that a proxy or an ingress spoke, before it is believed."""
MAX_REJECTED_AT_START = 5
"""Records rejected alike before anything ever succeeded, before the request itself is held to be wrong."""

_MONEY_CODES = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_error",
    "blocked_api_access",
    "enforced_spend_limit_reached",
}
_MONEY_CODE = re.compile(r"spend_.*|.*_(spend|usage)_limit_exceeded|(.*_)?budget_exceeded")
_QUOTA_TEXTS = ("exceeded your current quota, please check your plan and billing",)
_MONEY_TEXTS = (
    "api usage limits",
    "credit balance is too low",
    "insufficient balance",
    # LiteLLM's, whose code is no more than "400" or "429":
    "budget has been exceeded",
    "max budget limit reached",
    "exceededbudget",
)
_MODEL_CODES = {"model_not_found", "model_decommissioned", "model_terms_required"}
_REQUEST_CODES = {"unsupported_parameter", "unsupported_value", "invalid_json_schema"}
_REQUEST_TEXTS = ("is deprecated for this model", "invalid schema for", "schema is not supported")
_SCHEMA_FIELDS = ("response_format", "output_config", "tools", "tool_choice")
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_TOO_LONG_TEXTS = ("maximum context length", "prompt is too long", "exceed context limit", "contextwindowexceedederror")
_REFUSED_CODES = {"content_filter", "content_policy_violation"}
_REFUSED_TEXTS = ("contentpolicyviolationerror",)  # LiteLLM, without a code
_RETRIED_STATUSES = {408, 409, 424, 499}
_WAITED_STATUSES = {429, 498, 503, 529}
_GATEWAY_TIMEOUTS = {504, 524}

# What an error's text code says where the status around it does not: a gateway's 500, or a 200 that holds an error.
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "timeout_error": 504,
    "invalid_request_error": 400,
}
_KNOWN_STATUSES = {400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 424, 429, 498, 499, 500, 502, 503, 504, 524, 529}


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """An error as the rules look at it."""

    status: int
    """What the teacher means: the body's code where that is known, else the HTTP status; 0: an error in a 200 without one."""
    http_status: int
    headers: Mapping[str, str]
    error: ErrorBody
    html: bool

    def code_in(self, codes: set[str]) -> bool:
        return any(code in codes for code in self.error.codes)

    def text_has(self, texts: tuple[str, ...]) -> bool:
        return any(text in self.error.message.lower() for text in texts)

    @property
    def should_retry(self) -> str:
        return self.headers.get("x-should-retry", "").strip().lower()


def classify(protocol: Protocol, status: int, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> Verdict:
    """The verdict on an HTTP answer. Header names in lower case; `now` (Unix time) stands in for a missing `Date` header."""
    if 300 <= status < 400:
        return Verdict(kind="stop", reason="configuration", status=status, code="redirect")
    if not 200 <= status < 300:
        return _error_verdict(status, headers, error_in(body), is_html(headers, body), now)
    try:
        payload = parse(body)
        if holds_error(payload):
            return _error_verdict(status, headers, error_in(body, payload), False, now)
        return _reply_verdict(status, reply_in(protocol, payload))
    except NotAReply:
        return Verdict(kind="retry", reason="not_a_reply", status=status, spent=True)


def classify_list(
    protocol: Protocol, status: int, headers: Mapping[str, str], body: bytes, *, now: float | None = None
) -> Verdict:
    """The verdict on the answer to a request for the model list; a server without one is no reason to stop."""
    if status in (404, 405):
        return Verdict(kind="reject", reason="no_list", status=status)
    if status == 200:
        try:
            return Verdict(kind="ok", reason="list", status=status, models=tuple(model_ids(parse(body))))
        except NotAReply:
            pass
    return classify(protocol, status, headers, body, now=now)


def prompt_cut(verdict: Verdict) -> Verdict:
    """The verdict on a reply to a prompt that the server cut: it answers another question than the one asked."""
    if verdict.kind not in ("ok", "repair"):
        return verdict
    return replace(verdict, kind="reject", reason="prompt_cut", stop_after=MAX_REJECTED_AT_START, stop_reason="prompt")


def of_failure(kind: Literal["configuration", "not_sent", "lost"], reason: str) -> Verdict:
    """The verdict where no whole answer came: nothing can be sent like this, nothing was sent, or nobody knows."""
    if kind == "configuration":
        return Verdict(kind="stop", reason="configuration", code=reason)
    if kind == "not_sent":
        return Verdict(kind="retry", reason="not_connected")
    return Verdict(kind="retry", reason=reason, spent=True)


def _reply_verdict(status: int, reply: Reply) -> Verdict:
    if reply.finish == "length":
        return Verdict(kind="repair", reason="length", status=status, reply=reply)
    if reply.finish == "refusal":
        return Verdict(kind="reject", reason="refused", status=status, reply=reply)
    if reply.finish == "aborted":
        return Verdict(kind="retry", reason="aborted", status=status, reply=reply, spent=True)
    if not reply.text.strip():
        return Verdict(kind="repair", reason="empty", status=status, reply=reply)
    return Verdict(kind="ok", reason="reply", status=status, reply=reply)


def _error_verdict(http_status: int, headers: Mapping[str, str], error: ErrorBody, html: bool, now: float | None) -> Verdict:
    seen = _Seen(status=_meant(http_status, error), http_status=http_status, headers=headers, error=error, html=html)
    verdict = next(found for rule in _RULES if (found := rule(seen)) is not None)
    hint = wait_hint(headers, error.message, now) if verdict.kind in ("wait", "retry") else None
    code = error.codes[0] if error.codes else ""
    return replace(verdict, status=http_status, code=verdict.code or code, field=error.field, wait_seconds=hint)


def _meant(http_status: int, error: ErrorBody) -> int:
    """The status the teacher means. Gateways wrap one in another, so a known one in the body is trusted."""
    if http_status in (402, 413):  # here the vendors' codes mislead: `invalid_request_error`, `rate_limit_exceeded`
        return http_status
    if error.status in _KNOWN_STATUSES:
        return error.status
    wrapped = 200 <= http_status < 300 or http_status >= 500
    if wrapped:
        named = (_STATUS_OF_CODE[code] for code in error.codes if code in _STATUS_OF_CODE)
        return next(named, 0 if http_status < 300 else http_status)
    return 429 if http_status == 400 and "rate_limit_exceeded" in error.codes else http_status


def _money(seen: _Seen) -> Verdict | None:
    coded = seen.code_in(_MONEY_CODES) or any(_MONEY_CODE.fullmatch(code) for code in seen.error.codes)
    # Gateways pass on the words and lose the code; with a wait beside them the same words mean a limit that comes free again.
    quota = seen.text_has(_QUOTA_TEXTS) and wait_hint(seen.headers, seen.error.message) is None
    if 402 in (seen.status, seen.error.status) or coded or quota or seen.text_has(_MONEY_TEXTS):
        return Verdict(kind="stop", reason="money")
    return None


def _key(seen: _Seen) -> Verdict | None:
    return Verdict(kind="stop", reason="key") if seen.status == 401 else None


def _permission_or_proxy(seen: _Seen) -> Verdict | None:
    if seen.status not in (403, 404):
        return None
    reason = "permission" if seen.status == 403 else "model"
    if seen.html:
        return Verdict(kind="retry", reason="proxy_page", stop_after=MAX_PROXY_RETRIES, stop_reason=reason)
    return Verdict(kind="stop", reason="permission") if seen.status == 403 else None


def _model(seen: _Seen) -> Verdict | None:
    return Verdict(kind="stop", reason="model") if seen.status == 404 or seen.code_in(_MODEL_CODES) else None


def _request(seen: _Seen) -> Verdict | None:
    failed_generation = "json_validate_failed" in seen.error.codes
    schema_refused = seen.status in (400, 422) and seen.error.field.startswith(_SCHEMA_FIELDS) and not failed_generation
    if seen.code_in(_REQUEST_CODES) or seen.text_has(_REQUEST_TEXTS) or schema_refused:
        return Verdict(kind="stop", reason="request")
    return None


def _too_long(seen: _Seen) -> Verdict | None:
    never_fits = seen.status in (413, 429) and seen.error.requested_over_limit
    too_large = seen.status == 413 and try_again_seconds(seen.error.message) is None
    said = seen.status in (400, 0) and seen.text_has(_TOO_LONG_TEXTS)
    if seen.code_in(_TOO_LONG_CODES) or said or too_large or never_fits:
        return Verdict(kind="reject", reason="too_long")
    return None


def _refused(seen: _Seen) -> Verdict | None:
    return Verdict(kind="reject", reason="refused") if seen.code_in(_REFUSED_CODES) or seen.text_has(_REFUSED_TEXTS) else None


def _failed_generation(seen: _Seen) -> Verdict | None:
    if "json_validate_failed" not in seen.error.codes:
        return None
    return Verdict(kind="repair", reason="json_validate_failed", spent=True)


def _told_not_to_retry(seen: _Seen) -> Verdict | None:
    if seen.should_retry != "false":
        return None
    return Verdict(kind="stop", reason="limit") if seen.status == 429 else Verdict(kind="reject", reason="not_retryable")


def _wait(seen: _Seen) -> Verdict | None:
    # A 413 that comes to this rule says when to try again.
    overloaded = any(code == "slow_down" or code.startswith("overloaded") for code in seen.error.codes)
    if overloaded or seen.status in _WAITED_STATUSES or seen.status == 413:
        return Verdict(kind="wait", reason="overloaded" if overloaded or seen.status in (498, 503, 529) else "rate_limit")
    return None


def _retry(seen: _Seen) -> Verdict | None:
    if seen.should_retry == "true" or seen.status in _RETRIED_STATUSES or not 400 <= seen.status < 500:
        # A gateway that gave up waiting does not know whether the teacher went on; nor does an unknown error in a 200.
        unknown = seen.status in _GATEWAY_TIMEOUTS or seen.http_status < 300
        return Verdict(kind="retry", reason=f"status_{seen.status}" if seen.status else "error_in_200", spent=unknown)
    return None


def _other(seen: _Seen) -> Verdict:
    return Verdict(kind="reject", reason="bad_request", stop_after=MAX_REJECTED_AT_START, stop_reason="request")


_RULES: tuple[Callable[[_Seen], Verdict | None], ...] = (
    _money,
    _key,
    _permission_or_proxy,
    _model,
    _request,
    _too_long,
    _refused,
    _failed_generation,
    _told_not_to_retry,
    _wait,
    _retry,
    _other,
)
