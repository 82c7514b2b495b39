"""The table of verdicts row by row: each row's own words, what is seen, and what to do about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.errors import MedkdError
from medkd.teacher.protocols import identifier
from medkd.teacher.scrubbing import Scrubber
from medkd.teacher.stops import stop_error
from medkd.teacher.verdicts import Verdict, classify, of_failure
from tests.teacher.scripted import completion_body
from tests.teacher.test_verdicts import HTML, anthropic_error, openai_error

SHOULD_RETRY, SHOULD_NOT = {"x-should-retry": "true"}, {"x-should-retry": "false"}


def seen(status: int, body: Any = b"", headers: dict[str, str] | None = None, protocol: str = "openai") -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(protocol, status, headers or {}, raw)  # type: ignore[arg-type]


def message(text: str) -> dict[str, Any]:
    return openai_error(None, text)


def refusing() -> dict[str, Any]:
    body = completion_body(None)
    body["choices"][0]["message"]["refusal"] = "I cannot help with that."
    return body


def claude(reason: str | None, text: str = "{}") -> Verdict:
    return seen(200, {"content": [{"type": "text", "text": text}], "stop_reason": reason}, protocol="anthropic")


def details(code: str) -> dict[str, Any]:
    return anthropic_error("rate_limit_error", details={"error_code": code})


MONEY_CODES = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "daily_usage_limit_exceeded",
    "billing_error",
    "blocked_api_access",
    "spend_limit_reached",
    "SPEND_CAP",
    "enforced_spend_limit_reached",
]

TABLE: list[tuple[str, Verdict, str]] = [
    ("bad header, bad URL", of_failure("configuration", "invalid_request"), "stop:configuration"),
    ("certificate error", of_failure("configuration", "certificate"), "stop:configuration"),
    *[(f"any 3xx: {status}", seen(status, HTML), "stop:configuration") for status in (300, 301, 302, 304, 307, 308, 399)],
    ("could not connect (nothing sent)", of_failure("not_sent", "connection"), "retry:not_connected"),
    *[
        (f"{what} after sending", of_failure("lost", what), f"retry:{what}:spent")
        for what in ("reset", "timeout", "deadline", "too_large")
    ],
    ("200 that is not JSON", seen(200, HTML), "retry:not_a_reply:spent"),
    ("200 that lacks the choices key", seen(200, {"id": "x"}), "retry:not_a_reply:spent"),
    ("200 that lacks the content key", seen(200, {"id": "x"}, protocol="anthropic"), "retry:not_a_reply:spent"),
    ("200 with empty choices", seen(200, {"choices": []}), "retry:not_a_reply:spent"),
    ("200 holding an error: by its code", seen(200, openai_error("rate_limit_exceeded")), "wait:rate_limit"),
    ("200 holding an error: by its integer code", seen(200, openai_error(429)), "wait:rate_limit"),
    ("200 holding a list of one error", seen(200, [openai_error("insufficient_quota")]), "stop:money"),
    ("200 holding an Anthropic error", seen(200, anthropic_error("overloaded_error"), protocol="anthropic"), "wait:overloaded"),
    ("200 holding an error as text: unknown", seen(200, {"error": "boom"}), "retry:error_in_200:spent"),
    ("200 holding an error: unknown", seen(200, [openai_error("who_knows")]), "retry:error_in_200:spent"),
    ("402", seen(402), "stop:money"),
    ("402 with a misleading code", seen(402, openai_error("invalid_request_error", "Insufficient Balance")), "stop:money"),
    *[(f"{code} as code", seen(429, openai_error(code)), "stop:money") for code in MONEY_CODES],
    *[(f"{code} as type", seen(403, openai_error(kind=code)), "stop:money") for code in MONEY_CODES],
    *[(f"{code} in error.details", seen(429, details(code), protocol="anthropic"), "stop:money") for code in MONEY_CODES],
    *[(f'text "{text}"', seen(400, message(f"You have: {text}.")), "stop:money")
      for text in ("API usage limits", "credit balance is too low", "Insufficient Balance", "INSUFFICIENT BALANCE")],
    ("money in a 200", seen(200, message("Insufficient Balance")), "stop:money"),
    ("money in a 500", seen(500, openai_error("insufficient_quota")), "stop:money"),
    ("money before x-should-retry", seen(429, openai_error("insufficient_quota"), SHOULD_RETRY), "stop:money"),
    ("401", seen(401), "stop:key"),
    ("401 as plain text", seen(401, b"Authentication Fails (governor)"), "stop:key"),
    ("401 with HTML", seen(401, HTML), "stop:key"),
    ("403", seen(403), "stop:permission"),
    ("403 with HTML", seen(403, HTML), "retry:proxy_page"),
    ("403 with HTML by its header", seen(403, b"no", {"content-type": "text/html; charset=x"}), "retry:proxy_page"),
    ("404 with HTML", seen(404, HTML), "retry:proxy_page"),
    ("404", seen(404), "stop:model"),
    *[(code, seen(400, openai_error(code)), "stop:model")
      for code in ("model_not_found", "model_decommissioned", "model_terms_required")],
    ("unsupported_parameter", seen(400, openai_error("unsupported_parameter", param="seed")), "stop:request"),
    ("unsupported_value", seen(400, openai_error("unsupported_value", param="temperature")), "stop:request"),
    ('"is deprecated for this model"', seen(400, message("`top_k` is deprecated for this model.")), "stop:request"),
    ("schema refused", seen(400, openai_error(None, "Invalid schema for response_format 'r'")), "stop:request"),
    ("context_length_exceeded", seen(400, openai_error("context_length_exceeded")), "reject:too_long"),
    ("exceed_context_size_error", seen(400, openai_error(400, kind="exceed_context_size_error")), "reject:too_long"),
    ('400 with "maximum context length"', seen(400, message("This model's maximum context length is 9")), "reject:too_long"),
    ('413 without "try again in N"', seen(413, message("too big")), "reject:too_long"),
    ("413 that asks for more than the limit", seen(413, message("Limit 8000, Requested 10013, try again")), "reject:too_long"),
    ("content_filter as an error", seen(400, openai_error("content_filter")), "reject:refused"),
    ("content_policy_violation as an error", seen(400, openai_error("content_policy_violation")), "reject:refused"),
    ("json_validate_failed", seen(400, openai_error("json_validate_failed")), "repair:json_validate_failed:spent"),
    ("x-should-retry: false on 429", seen(429, b"", SHOULD_NOT), "stop:limit"),
    *[(f"x-should-retry: false on {status}", seen(status, b"", SHOULD_NOT), "reject:not_retryable")
      for status in (400, 408, 409, 498, 500, 503, 529)],
    *[(f"{status}", seen(status), "wait") for status in (429, 498, 503, 529)],
    *[(f"{code} in a {status}", seen(status, openai_error(code)), "wait:overloaded")
      for code in ("slow_down", "overloaded", "overloaded_error") for status in (400, 424, 500)],
    ('413 with "try again in N"', seen(413, message("Limit 8000, Requested 1500. Try Again In 2 Minutes")), "wait:rate_limit"),
    ("529 with x-should-retry: true", seen(529, b"", SHOULD_RETRY), "wait:overloaded"),
    ("x-should-retry: true", seen(400, b"", SHOULD_RETRY), "retry:status_400"),
    *[(f"{status}", seen(status), "retry") for status in (408, 409, 424, 499, 500, 501, 502, 504, 520, 599)],
    *[(f"other 4xx: {status}", seen(status), "reject:bad_request") for status in (400, 405, 406, 410, 415, 422, 431, 451)],
    ("200 finish length", seen(200, completion_body("half", "length")), "repair:length"),
    ("200 finish length, even if the JSON parses", seen(200, completion_body('{"a": 1}', "length")), "repair:length"),
    ("200 finish max_tokens", claude("max_tokens"), "repair:length"),
    ("200 finish model_context_window_exceeded", claude("model_context_window_exceeded"), "repair:length"),
    ("200 refusal text", seen(200, refusing()), "reject:refused"),
    ("200 stop_reason refusal", claude("refusal", ""), "reject:refused"),
    ("200 content_filter", seen(200, completion_body("half", "content_filter")), "reject:refused"),
    *[(f"200 {reason} finish", seen(200, completion_body("half", reason)), "retry:aborted:spent")
      for reason in ("insufficient_system_resource", "abort", None, "tool_calls", "function_call", "unknown_news")],
    *[(f"200 {reason} stop_reason", claude(reason), "retry:aborted:spent") for reason in (None, "pause_turn", "unknown_news")],
    ("200 whitespace", seen(200, completion_body(" \n\t ")), "repair:empty"),
    ("200 null content", seen(200, completion_body(None)), "repair:empty"),
    ("200 no content blocks", seen(200, {"content": [], "stop_reason": "end_turn"}, protocol="anthropic"), "repair:empty"),
    ("a gateway's 500 whose body says code 429", seen(500, openai_error(429)), "wait:rate_limit"),
    ("a gateway's 500 whose body says code \"503\"", seen(500, openai_error("503")), "wait:overloaded"),
    ("a gateway's 502 that quotes a 401", seen(502, message('{"error": {"code": 401}}')), "stop:key"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_row(found: Verdict, expected: str) -> None:
    kind, *rest = expected.split(":")
    assert found.kind == kind
    if rest:
        assert found.reason == rest[0]
        assert found.spent == ("spent" in rest[1:])


@pytest.mark.parametrize("text", ["try again in 2 MINUTES", "Try Again In 2m0s.", "TRY AGAIN IN 120S", "try again in 120000 ms"])
def test_a_wait_is_read_in_any_letter_case_and_unit(text: str) -> None:
    assert seen(429, message(f"Limit reached, {text}")).wait_seconds == pytest.approx(120.0)


def test_html_is_believed_after_two_retries_and_five_like_rejections_are_a_wrong_request() -> None:
    assert (seen(403, HTML).stop_after, seen(403, HTML).stop_reason) == (2, "permission")
    assert (seen(404, HTML).stop_after, seen(404, HTML).stop_reason) == (2, "model")
    assert (seen(422).stop_after, seen(422).stop_reason) == (5, "request")


# --- nothing leaks ------------------------------------------------------------------------------------------------------

KEY = "sk-canary-0123456789abcdef"
PROMPT = "Frau Zauberwort-Canary said: mellifluous pains"
ECHOES = st.sampled_from(
    [KEY, KEY[3:15], f"x-{KEY[-10:]}", KEY.upper(), "Zauberwort-Canary", "mellifluous", "zauberwort-canary.mellifluous"]
)
NAMES = ["error", "code", "type", "message", "param", "detail", "details", "error_code", "loc", "msg", "choices", "content", "id"]
NAMES += ["model", "system_fingerprint", "finish_reason", "object", "error_type", "stop_reason", "usage"]
ECHOING = st.recursive(
    ECHOES | ECHOES.map("'{}' is not allowed".format) | st.integers(100, 599),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=10,
)


@given(st.sampled_from(["openai", "anthropic"]), st.integers(100, 599), ECHOING | st.builds(dict, error=ECHOING), ECHOES)
def test_neither_key_nor_prompt_is_in_what_a_verdict_may_show(protocol: str, status: int, body: Any, echoed_id: str) -> None:
    found = seen(status, body, {"x-request-id": echoed_id}, protocol)
    reply = found.reply
    names = [found.code, found.field, identifier(echoed_id)]
    names += [reply.served_model, reply.fingerprint, reply.request_id] if reply else []
    code, field, *others = Scrubber(KEY).clean(names, [PROMPT])
    shown = " ".join((found.reason, code, field, *others))
    if found.kind == "stop":
        problem: MedkdError = stop_error("teacher", Verdict(kind="stop", reason=found.reason, code=code, field=field))
        shown += str(problem)
    for secret in ("canary", "0123456", "89abcdef", "zauberwort", "mellifluous"):
        assert secret not in shown.lower()


def test_our_own_names_may_be_said_whatever_the_prompt_holds() -> None:
    prompt = ["Which model has the lowest temperature? gpt-x does."]
    assert Scrubber(None).clean(["gpt-x", "temperature", "messages[0].content"], prompt, ["gpt-x"]) == [
        "gpt-x",
        "temperature",
        "messages[0].content",
    ]
