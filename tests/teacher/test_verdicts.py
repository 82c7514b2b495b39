"""The verdict table, row by row, and that it has an answer to everything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.teacher.verdicts import Verdict, classify, classify_list, of_failure
from tests.teacher.scripted import completion_body

HTML = b"<!DOCTYPE html><html><body><h1>Forbidden</h1></body></html>"


def openai_error(code: Any = None, message: str = "no", kind: Any = None, param: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_error(kind: str, message: str = "no", **error: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **error}, "request_id": "req_1"}


def verdict(status: int, body: Any = b"", headers: dict[str, str] | None = None, protocol: str = "openai") -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(protocol, status, headers or {}, raw)  # type: ignore[arg-type]


def short(found: Verdict) -> str:
    return f"{found.kind}:{found.reason}"


SPEND_LIMIT = anthropic_error("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"})
GROQ_NEVER_FITS = "Request too large on tokens per minute (TPM): Limit 8000, Requested 10013, please reduce it and try again."
GROQ_WAIT = "on tokens per minute (TPM): Limit 8000, Used 7000, Requested 1500. Please try again in 7.66s."
VLLM_TOO_LONG = {
    "object": "error",
    "message": "This model's maximum context length is 4096 tokens.",
    "type": "BadRequestError",
    "code": 400,
}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # stop: configuration
        (301, b"", "stop:configuration"),
        (307, b"", "stop:configuration"),
        # stop: money
        (402, openai_error("invalid_request_error", "Insufficient Balance", "unknown_error"), "stop:money"),
        (402, b"", "stop:money"),
        (402, anthropic_error("billing_error"), "stop:money"),
        (429, openai_error("insufficient_quota", kind="insufficient_quota"), "stop:money"),
        (429, openai_error("credit_balance_exhausted"), "stop:money"),
        (429, openai_error("daily_spend_limit_exceeded"), "stop:money"),
        (429, openai_error("monthly_usage_limit_exceeded"), "stop:money"),
        (403, openai_error("blocked_api_access"), "stop:money"),
        (429, openai_error("spend_cap"), "stop:money"),
        (429, SPEND_LIMIT, "stop:money"),
        (400, anthropic_error("invalid_request_error", "Your credit balance is too low to access the API."), "stop:money"),
        (400, anthropic_error("invalid_request_error", "You have reached your specified API usage limits."), "stop:money"),
        (400, openai_error(None, "Insufficient Balance"), "stop:money"),
        # stop: key, permission, model
        (
            401,
            openai_error("invalid_api_key", "Incorrect API key provided: sk-abcde****wxyz.", "invalid_request_error"),
            "stop:key",
        ),
        (401, b"Authentication Fails (governor)", "stop:key"),
        (401, HTML, "stop:key"),
        (403, anthropic_error("permission_error"), "stop:permission"),
        (403, b"", "stop:permission"),
        (404, openai_error("model_not_found"), "stop:model"),
        (404, b"404 page not found", "stop:model"),
        (400, openai_error("model_decommissioned"), "stop:model"),
        (400, openai_error("model_terms_required"), "stop:model"),
        # a proxy's page: not believed at once
        (403, HTML, "retry:proxy_page"),
        (404, HTML, "retry:proxy_page"),
        # stop: request
        (400, openai_error("unsupported_parameter", param="max_tokens"), "stop:request"),
        (400, openai_error("unsupported_value", param="temperature"), "stop:request"),
        (400, anthropic_error("invalid_request_error", "`temperature` is deprecated for this model."), "stop:request"),
        (400, openai_error(None, "Invalid schema for response_format 'x'", param="response_format"), "stop:request"),
        (400, openai_error("invalid_json_schema"), "stop:request"),
        (422, {"detail": [{"loc": ["body", "response_format", "type"], "msg": "Input should be 'text'"}]}, "stop:request"),
        # reject: too long
        (400, openai_error("context_length_exceeded"), "reject:too_long"),
        (400, openai_error(400, kind="exceed_context_size_error"), "reject:too_long"),
        (400, VLLM_TOO_LONG, "reject:too_long"),
        (400, anthropic_error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), "reject:too_long"),
        (413, anthropic_error("request_too_large"), "reject:too_long"),
        (413, HTML, "reject:too_long"),
        (413, openai_error("rate_limit_exceeded", GROQ_NEVER_FITS, "tokens"), "reject:too_long"),
        (413, openai_error("rate_limit_exceeded", GROQ_NEVER_FITS + " try again in 3s", "tokens"), "reject:too_long"),
        (429, openai_error("rate_limit_exceeded", "Request too large: Limit 30000, Requested 40000."), "reject:too_long"),
        # reject: refused
        (400, openai_error("content_filter"), "reject:refused"),
        (400, openai_error("content_policy_violation"), "reject:refused"),
        # repair
        (
            400,
            {"error": {"code": "json_validate_failed", "failed_generation": "{", "message": "x"}},
            "repair:json_validate_failed",
        ),
        (400, openai_error("json_validate_failed", param="response_format"), "repair:json_validate_failed"),
        # wait
        (429, openai_error("rate_limit_exceeded", "Please try again in 1.2s.", "tokens"), "wait:rate_limit"),
        (429, b"", "wait:rate_limit"),
        (429, b"Too many requests", "wait:rate_limit"),
        (413, openai_error("rate_limit_exceeded", GROQ_WAIT, "tokens"), "wait:rate_limit"),
        (498, b"", "wait:overloaded"),
        (503, openai_error(503, "Loading model", "unavailable_error"), "wait:overloaded"),
        (503, HTML, "wait:overloaded"),
        (529, anthropic_error("overloaded_error"), "wait:overloaded"),
        (503, openai_error("slow_down"), "wait:overloaded"),
        (400, openai_error("slow_down"), "wait:overloaded"),
        (424, {"error": "Model is overloaded", "error_type": "overloaded"}, "wait:overloaded"),
        # retry
        (408, b"", "retry:status_408"),
        (409, anthropic_error("conflict_error"), "retry:status_409"),
        (424, b"", "retry:status_424"),
        (499, b"", "retry:status_499"),
        (500, anthropic_error("api_error"), "retry:status_500"),
        (500, b"", "retry:status_500"),
        (502, HTML, "retry:status_502"),
        (504, anthropic_error("timeout_error"), "retry:status_504"),
        (599, b"\xff\xfe\x00", "retry:status_599"),
        # other 4xx
        (400, openai_error("invalid_request_error"), "reject:bad_request"),
        (400, b"", "reject:bad_request"),
        (405, b"", "reject:bad_request"),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required", "input": {}}]}, "reject:bad_request"),
        (422, {"detail": "nope"}, "reject:bad_request"),
        (418, {"message": "nope"}, "reject:bad_request"),
        # a 200 that is none
        (200, b"", "retry:not_a_reply"),
        (200, b"{", "retry:not_a_reply"),
        (200, HTML, "retry:not_a_reply"),
        (200, {"id": "x"}, "retry:not_a_reply"),
        (200, b"\xff\xfe{}", "retry:not_a_reply"),
        (204, b"", "retry:not_a_reply"),
        # a 200 that holds an error
        (200, openai_error("insufficient_quota"), "stop:money"),
        (200, openai_error(429), "wait:rate_limit"),
        (200, openai_error("429"), "wait:rate_limit"),
        (200, openai_error("rate_limit_exceeded"), "wait:rate_limit"),
        (200, anthropic_error("overloaded_error"), "wait:overloaded"),
        (200, openai_error("invalid_api_key"), "stop:key"),
        (200, openai_error("model_not_found"), "stop:model"),
        (200, openai_error("context_length_exceeded"), "reject:too_long"),
        (200, openai_error("content_filter"), "reject:refused"),
        (200, openai_error(500), "retry:status_500"),
        (200, openai_error("who_knows"), "retry:error_in_200"),
        (200, {"error": "boom"}, "retry:error_in_200"),
        (200, {"object": "error", "message": "boom"}, "retry:error_in_200"),
        # one status wrapped in another
        (500, openai_error(429), "wait:rate_limit"),
        (500, {"code": 429, "message": "slow"}, "wait:rate_limit"),
        (502, openai_error("rate_limit_error"), "wait:rate_limit"),
        (500, openai_error(401), "stop:key"),
        (500, openai_error(402), "stop:money"),
        (500, openai_error(404), "stop:model"),
        (500, openai_error("insufficient_quota"), "stop:money"),
        (400, openai_error("rate_limit_exceeded"), "wait:rate_limit"),
        (500, openai_error(None, 'upstream said: {"error": {"code": 429, "message": "slow"}}'), "wait:rate_limit"),
        (500, openai_error(None, '{"error": {"code": "insufficient_quota"}}'), "stop:money"),
        (502, [openai_error(503)], "wait:overloaded"),
        (500, openai_error(123), "retry:status_500"),
    ],
)
def test_errors(status, body, expected):
    assert short(verdict(status, body)) == expected
    if not isinstance(body, bytes) or body.startswith(b"<"):
        assert short(verdict(status, body, protocol="anthropic")) == expected


@pytest.mark.parametrize(
    ("status", "should_retry", "expected"),
    [
        (429, "false", "stop:limit"),
        (500, "false", "reject:not_retryable"),
        (503, "false", "reject:not_retryable"),
        (409, "False", "reject:not_retryable"),
        (400, "true", "retry:status_400"),
        (500, "true", "retry:status_500"),
        (429, "true", "wait:rate_limit"),
        (401, "true", "stop:key"),
    ],
)
def test_the_server_may_say_whether_to_retry(status, should_retry, expected):
    assert short(verdict(status, b"", {"x-should-retry": should_retry})) == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (completion_body("Doctor: Hi"), "ok:reply"),
        (completion_body('{"a": 1}', "length"), "repair:length"),
        (completion_body("", "stop"), "repair:empty"),
        (completion_body("  \n\t ", "stop"), "repair:empty"),
        (completion_body(None, "stop"), "repair:empty"),
        (completion_body("half", "content_filter"), "reject:refused"),
        (completion_body("half", "insufficient_system_resource"), "retry:aborted"),
        (completion_body("half", "abort"), "retry:aborted"),
        (completion_body("half", None), "retry:aborted"),
        (completion_body("half", "some_news"), "retry:aborted"),
        (completion_body("fine", error=None), "ok:reply"),
        (completion_body("fine", error={}), "ok:reply"),
    ],
)
def test_completions(payload, expected):
    found = verdict(200, payload)
    assert short(found) == expected
    assert found.reply is not None and found.reply.usage is not None


@pytest.mark.parametrize(
    ("content", "reason", "expected"),
    [
        ([{"type": "text", "text": "Hi"}], "end_turn", "ok:reply"),
        ([], "end_turn", "repair:empty"),
        ([{"type": "text", "text": "{"}], "max_tokens", "repair:length"),
        ([{"type": "text", "text": "{"}], "model_context_window_exceeded", "repair:length"),
        ([], "refusal", "reject:refused"),
        ([], "pause_turn", "retry:aborted"),
        ([{"type": "tool_use", "input": {}}], "tool_use", "ok:reply"),
    ],
)
def test_anthropic_messages(content, reason, expected):
    assert short(verdict(200, {"type": "message", "content": content, "stop_reason": reason}, protocol="anthropic")) == expected


@pytest.mark.parametrize(
    ("status", "body", "spent"),
    [
        (200, b"{", True),
        (200, {"error": "boom"}, True),
        (200, completion_body("half", "abort"), True),
        (504, b"", True),  # the gateway gave up, the teacher may not have
        (400, openai_error("json_validate_failed"), True),
        (429, b"", False),
        (500, b"", False),
        (400, b"", False),
        (200, completion_body("fine"), False),
    ],
)
def test_what_may_have_been_billed_without_use_is_marked(status, body, spent):
    assert verdict(status, body).spent is spent


def test_failures_without_an_answer():
    assert short(of_failure("configuration", "certificate")) == "stop:configuration"
    assert (of_failure("not_sent", "connection").kind, of_failure("not_sent", "connection").spent) == ("retry", False)
    assert (of_failure("lost", "deadline").kind, of_failure("lost", "deadline").spent) == ("retry", True)


def test_a_wait_carries_the_hint_of_headers_or_message():
    assert verdict(429, openai_error("rate_limit_exceeded", "Please try again in 1.2s.")).wait_seconds == 1.2
    assert verdict(529, b"", {"retry-after": "30"}).wait_seconds == 30.0
    assert verdict(429).wait_seconds is None


def test_a_refused_request_names_the_field():
    assert verdict(400, openai_error("unsupported_value", param="temperature")).field == "temperature"
    assert verdict(400, anthropic_error("invalid_request_error", "`top_p` is deprecated for this model.")).field == "top_p"
    located = {"detail": [{"loc": ["body", "response_format", "type"], "msg": "no"}]}
    assert verdict(422, located).field == "response_format.type"


def test_a_verdict_keeps_codes_and_drops_free_text():
    found = verdict(401, openai_error("Incorrect API key sk-abcde provided", "Incorrect API key provided: sk-abcde****wxyz."))
    assert found.code == "" and "sk-" not in repr(found)
    quoted = openai_error(None, "The word 'Mathilda' in messages[0] is forbidden")
    assert "Mathilda" not in repr(verdict(400, quoted))


def test_a_server_without_a_model_list_is_no_reason_to_stop():
    listed = b'{"data": [{"id": "m"}]}'
    assert (classify_list("openai", 200, {}, listed).kind, classify_list("openai", 200, {}, listed).models) == ("ok", ("m",))
    assert classify_list("openai", 404, {}, b"").kind == "reject"
    assert classify_list("openai", 401, {}, listed).reason == "key"
    assert classify_list("openai", 500, {}, listed).kind == "retry"


BODIES = st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["429", "insufficient_quota", "stop"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["error", "code", "type", "message", "param", "detail", "details", "error_code", "loc", "msg", "choices", "content",
             "finish_reason", "object", "error_type", "stop_reason", "usage"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "retry-after", "x-should-retry", "date", "x-ratelimit-remaining-requests"]) | st.text(),
    st.text(),
)


@given(st.sampled_from(["openai", "anthropic"]), st.integers(0, 999), HEADERS, BODIES)
def test_there_is_a_verdict_on_everything(protocol, status, headers, body):
    found = classify(protocol, status, headers, body)
    assert found.kind in ("ok", "stop", "wait", "retry", "repair", "reject")
    assert found.reason and found.status == status
    assert (found.kind == "ok") <= (200 <= status < 300 and found.reply is not None)
    assert found.wait_seconds is None or found.wait_seconds > 0


@given(st.sampled_from(["openai", "anthropic"]), st.integers(0, 999), BODIES)
def test_no_key_echoed_as_text_is_kept(protocol, status, body):
    echo = json.dumps({"error": {"message": f"your key 'sk-canary-key' {body!r}", "code": "bad key sk-canary-key"}}).encode()
    assert "canary" not in repr(classify(protocol, status, {}, echo))


@pytest.mark.parametrize(
    ("headers", "more", "verdict"),
    [({}, "", "stop"), ({"retry-after": "7"}, "", "wait"), ({}, " Please retry in 34.07s.", "wait")],
)
def test_a_quota_whose_code_a_gateway_lost_is_money_unless_a_wait_stands_beside_it(headers, more, verdict):
    text = "litellm.RateLimitError: You exceeded your current quota, please check your plan and billing details."
    body = json.dumps({"error": {"message": text + more, "type": "throttling_error", "param": None, "code": "429"}}).encode()
    assert classify("openai", 429, headers, body).kind == verdict
