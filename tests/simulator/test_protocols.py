"""The public SDKs talk to the simulator, and requests a vendor would refuse are refused in the vendor's words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from medkd.records import PATIENT_RECORD
from medkd.simulator.limits import RateLimits
from medkd.simulator.server import Server
from tests.simulator.asking import asked, extracting, send, writing

Serve = Callable[..., Server]
TALK = "Doctor: Hello, Ms. Ada Bell. How old are you?\nPatient: I'm 41. I've had a cough for two days."
EXTRACT = f"Answer in JSON.\n<conversation>\n{TALK}\n</conversation>"


def openai_client(server: Server, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", max_retries=0, **{"api_key": "secret", **options})


def anthropic_client(server: Server, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, max_retries=0, **{"api_key": "secret", **options})


def test_the_openai_sdk_gets_a_conversation_with_usage_and_request_id(serve: Serve) -> None:
    client = openai_client(serve(api_key="secret"))
    reply = client.chat.completions.create(
        model="clinic-1", messages=[{"role": "user", "content": asked()}], max_completion_tokens=2000, temperature=1.0, seed=3
    )
    assert reply.choices[0].finish_reason == "stop" and reply.choices[0].message.content
    assert reply.choices[0].message.content.startswith("Doctor: ")
    assert reply.usage and reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 100
    assert reply._request_id and reply.system_fingerprint and reply.model == "clinic-1"


def test_the_openai_sdk_gets_a_record_in_the_schema(serve: Serve) -> None:
    client = openai_client(serve())
    schema: Any = {"name": "patient_record", "strict": True, "schema": PATIENT_RECORD.json_schema()}
    reply = client.chat.completions.create(
        model="clinic-1",
        messages=[{"role": "user", "content": EXTRACT}],
        response_format={"type": "json_schema", "json_schema": schema},
    )
    record = json.loads(reply.choices[0].message.content or "")
    assert record["patient_details"]["name"] == "Ada Bell"
    assert record["current_diagnosis"]["symptoms"] == ["cough"]


def test_both_sdks_list_the_models(serve: Serve) -> None:
    server = serve(models=("clinic-1", "clinic-2"))
    assert [model.id for model in openai_client(server).models.list()] == ["clinic-1", "clinic-2"]
    assert [model.id for model in anthropic_client(server).models.list()] == ["clinic-1", "clinic-2"]
    assert openai_client(server).models.retrieve("clinic-2").id == "clinic-2"
    assert anthropic_client(server).models.retrieve("clinic-2").display_name == "clinic-2"


def test_the_anthropic_sdk_gets_text_and_structured_output(serve: Serve) -> None:
    client = anthropic_client(serve(api_key="secret"))
    written = client.messages.create(
        model="clinic-1", max_tokens=2000, system="Plain text.", messages=[{"role": "user", "content": asked()}]
    )
    assert written.content[0].type == "text" and written.content[0].text.startswith("Doctor: ")
    assert written.stop_reason == "end_turn" and written.usage.output_tokens > 50 and written._request_id
    formed: Any = {"format": {"type": "json_schema", "schema": PATIENT_RECORD.json_schema()}}
    record = client.messages.create(
        model="clinic-1", max_tokens=2000, messages=[{"role": "user", "content": EXTRACT}], extra_body={"output_config": formed}
    )
    assert record.content[0].type == "text" and json.loads(record.content[0].text)["patient_details"]["age"] == "41"


def test_the_anthropic_sdk_gets_a_forced_tools_input(serve: Serve) -> None:
    reply = anthropic_client(serve()).messages.create(
        model="clinic-1",
        max_tokens=2000,
        tools=[{"name": "record", "input_schema": PATIENT_RECORD.json_schema()}],
        tool_choice={"type": "tool", "name": "record"},
        messages=[{"role": "user", "content": EXTRACT}],
    )
    assert reply.stop_reason == "tool_use" and reply.content[0].type == "tool_use"
    assert reply.content[0].input["patient_details"]["name"] == "Ada Bell"


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ("rate_limit", openai.RateLimitError),
        ("money", openai.RateLimitError),
        ("bad_key", openai.AuthenticationError),
        ("dead_model", openai.NotFoundError),
        ("http_500", openai.InternalServerError),
        ("overloaded", openai.InternalServerError),
        ("reset_after", openai.APIConnectionError),
    ],
)
def test_the_openai_sdk_maps_each_fault_to_its_own_error(serve: Serve, fault: str, raised: type[Exception]) -> None:
    client = openai_client(serve(faults=fault))
    with pytest.raises(raised):
        client.chat.completions.create(model="clinic-1", messages=[{"role": "user", "content": asked()}])


def test_the_anthropic_sdk_maps_errors_and_their_types(serve: Serve) -> None:
    messages: Any = [{"role": "user", "content": asked()}]
    with pytest.raises(anthropic.RateLimitError, match="rate_limit_error"):
        anthropic_client(serve(faults="rate_limit")).messages.create(model="clinic-1", max_tokens=9, messages=messages)
    with pytest.raises(anthropic.APIStatusError, match="billing_error") as money:
        anthropic_client(serve(faults="money")).messages.create(model="clinic-1", max_tokens=9, messages=messages)
    assert money.value.status_code == 402
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        anthropic_client(serve(api_key="other")).messages.create(model="clinic-1", max_tokens=9, messages=messages)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": None}, "missing_required_parameter"),
        ({"messages": None}, "missing_required_parameter"),
        ({"messages": []}, "empty_array"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value"),
        ({"temperature": 3}, "invalid_value"),
        ({"seed": "seven"}, "invalid_type"),
        ({"max_completion_tokens": 0}, "invalid_value"),
        ({"response_format": {"type": "json_object"}}, None),
        ({"response_format": {"type": "yaml"}}, "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "missing_required_parameter"),
    ],
)
def test_openai_requests_a_vendor_refuses_get_a_400_and_are_not_billed(
    serve: Serve, change: dict[str, Any], code: str | None
) -> None:
    server = serve()
    body = {name: value for name, value in {**writing(), **change}.items() if value is not None}
    reply = send(server.url, "/v1/chat/completions", body)
    assert reply.status == 400 and reply.json()["error"]["code"] == code
    assert server.counters.stats()["billed_total"] == 0


def test_a_strict_schema_must_close_its_objects_and_require_all_properties(serve: Serve) -> None:
    server = serve()
    for spoil in ({"additionalProperties": True}, {"required": []}):
        body = extracting(TALK)
        body["response_format"]["json_schema"]["schema"] = {**PATIENT_RECORD.json_schema(), **spoil}
        reply = send(server.url, "/v1/chat/completions", body)
        assert reply.status == 400 and reply.json()["error"]["code"] == "invalid_json_schema"


ANTHROPIC = {"model": "clinic-1", "max_tokens": 500, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("change", "version", "status"),
    [
        ({}, "2023-06-01", 200),
        ({}, None, 400),
        ({"max_tokens": None}, "2023-06-01", 400),
        ({"messages": [{"role": "system", "content": "x"}]}, "2023-06-01", 400),
        ({"temperature": 0.2}, "2023-06-01", 200),
        ({"temperature": 1.5}, "2023-06-01", 400),
        ({"temperature": 0.2}, "2026-10-21", 400),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]}, "2023-06-01", 200),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]}, "2026-10-21", 400),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
            "2026-10-21",
            400,
        ),
        ({"thinking": {"type": "disabled"}, "cache_control": {"type": "ephemeral"}, "service_tier": "auto"}, "2026-10-21", 200),
        ({"model": "clinic-0"}, "2023-06-01", 404),
    ],
)
def test_anthropic_requests_are_taken_as_their_generation_takes_them(
    serve: Serve, change: dict[str, Any], version: str | None, status: int
) -> None:
    body = {name: value for name, value in {**ANTHROPIC, **change}.items() if value is not None}
    headers = {"anthropic_version": version} if version else {}
    reply = send(serve().url, "/v1/messages", body, **headers)
    assert reply.status == status
    if status >= 400:
        assert reply.json()["request_id"] == reply.headers["request-id"]


def test_both_generations_of_keys_are_taken(serve: Serve) -> None:
    server = serve(api_key="secret")
    for headers in ({"x_api_key": "secret"}, {"authorization": "Bearer secret"}):
        assert send(server.url, "/v1/messages", ANTHROPIC, anthropic_version="2026-10-21", **headers).status == 200
    assert send(server.url, "/v1/chat/completions", writing()).status == 401
    assert send(server.url, "/v1/chat/completions", writing(), authorization="Bearer secret").status == 200


def test_a_reply_limit_cuts_the_reply_and_says_so(serve: Serve) -> None:
    server = serve()
    whole = send(server.url, "/v1/chat/completions", writing()).json()
    cut = send(server.url, "/v1/chat/completions", {**writing(), "max_tokens": 20}).json()
    assert cut["choices"][0]["finish_reason"] == "length" and cut["usage"]["completion_tokens"] == 20
    assert whole["choices"][0]["message"]["content"].startswith(cut["choices"][0]["message"]["content"])
    reply = send(server.url, "/v1/messages", {**ANTHROPIC, "max_tokens": 2}, anthropic_version="2023-06-01").json()
    assert reply["stop_reason"] == "max_tokens" and reply["usage"]["output_tokens"] == 2


def test_limits_are_told_in_headers_and_enforced_with_a_wait(serve: Serve) -> None:
    server = serve(requests_per_minute=6, tokens_per_minute=600_000)
    first = send(server.url, "/v1/chat/completions", writing())
    assert first.status == 200 and first.headers["x-ratelimit-limit-requests"] == "6"
    assert first.headers["x-ratelimit-remaining-requests"] == "0" and first.headers["x-ratelimit-reset-requests"].endswith("s")
    second = send(server.url, "/v1/chat/completions", writing())
    assert second.status == 429 and second.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(second.headers["retry-after"]) <= 10
    third = send(server.url, "/v1/messages", ANTHROPIC, anthropic_version="2023-06-01")
    assert third.status == 429 and third.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert server.counters.stats()["billed_total"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"model": 1}',
        b"[" * 100_000,
        {
            **writing(),
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"items": 3}}},
        },
        {**writing(), "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": [1]}}}},
    ],
)
def test_a_body_of_any_shape_gets_an_error_reply_and_the_server_lives(serve: Serve, body: Any) -> None:
    server = serve()
    assert send(server.url, "/v1/chat/completions", body).status in (400, 500)
    assert send(server.url, "/v1/chat/completions", writing("sore \ud83d toe")).status == 200


def test_a_rolling_limit_counts_any_minute_and_what_a_reply_did_not_use_is_given_back() -> None:
    now = [0.0]
    limits = RateLimits(requests_per_minute=3, tokens_per_minute=1000, kind="rolling", clock=lambda: now[0])
    assert limits.take(900) == 0
    limits.give_back(800)
    now[0] = 10
    assert [limits.take(100), limits.take(100)] == [0, 0]
    assert limits.take(100) == 50
    now[0] = 60
    assert limits.take(900) == 10, "100 of the first call are free again, and 200 of the others are not"
    now[0] = 70
    assert limits.take(5000) == 0, "what never fits goes when nothing else is there"
    state = limits.allowance().tokens
    assert state is not None and state.remaining == 0 and state.reset_seconds == 60
