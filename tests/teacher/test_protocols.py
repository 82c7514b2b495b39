"""Both wire protocols, from request to bytes and from bytes to reply."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.records import PATIENT_RECORD
from medkd.teacher.json_schemas import strict, unbounded
from medkd.teacher.prompts import Message, Request
from medkd.teacher.protocols import NotAReply, Usage, decode, encode, headers, identifier, model_ids, parse
from tests.teacher.scripted import completion_body, teacher

SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
TALK = (Message("system", "You are S. Answer in JSON."), Message("user", "Größe?"))
PLAIN = Request(messages=TALK, reply_limit=100)
JSON = Request(messages=TALK, reply_limit=100, temperature=0.0, seed=7, json_schema=SCHEMA, schema_name="patient_record")


def anthropic(**changes):
    return teacher(protocol="anthropic", structured_output=changes.pop("structured_output", "output_config"), **changes)


def sent(config, request):
    path, body = encode(config, request)
    return path, json.loads(body)


def test_an_openai_request_holds_only_what_is_set():
    path, fields = sent(teacher(), PLAIN)
    assert path == "/chat/completions"
    assert fields == {
        "model": "teacher-1",
        "messages": [{"role": "system", "content": TALK[0].text}, {"role": "user", "content": "Größe?"}],
        "max_tokens": 100,
    }


def test_an_openai_request_names_its_limit_as_the_configuration_says():
    _, fields = sent(teacher(reply_limit_field="max_completion_tokens"), PLAIN)
    assert fields["max_completion_tokens"] == 100 and "max_tokens" not in fields


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json_object", {"type": "json_object"}),
        ("json_schema", {"type": "json_schema", "json_schema": {"name": "patient_record", "strict": True, "schema": SCHEMA}}),
        ("none", None),
    ],
)
def test_an_openai_extraction_asks_for_json_in_the_configured_form(form, expected):
    _, fields = sent(teacher(structured_output=form), JSON)
    assert fields.get("response_format") == expected
    assert (fields["temperature"], fields["seed"]) == (0.0, 7)


def test_json_object_is_never_asked_for_without_the_word_json():
    plain = Request(messages=(Message("user", "Write it."),), reply_limit=9, json_schema=SCHEMA, schema_name="r")
    _, fields = sent(teacher(structured_output="json_object"), plain)
    assert "JSON" in fields["messages"][-1]["content"] and fields["messages"][-1]["content"].startswith("Write it.")
    _, unchanged = sent(teacher(structured_output="json_object"), JSON)
    assert unchanged["messages"][-1]["content"] == "Größe?"


MILLIGRAMS = {"type": "object", "properties": {"mg": {"type": "number", "minimum": 0}}}
LOOSE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "sex": {"type": "string", "enum": ["f", "m"]},
        "doses": {"type": "array", "minItems": 1, "items": MILLIGRAMS},
        "either": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {}}]},
    },
    "required": ["name"],
}


def test_a_strict_schema_requires_everything_and_lets_what_was_optional_be_null():
    asked = Request(messages=TALK, reply_limit=9, json_schema=LOOSE, schema_name="r")
    _, fields = sent(teacher(structured_output="json_schema"), asked)
    assert fields["response_format"]["json_schema"]["strict"] is True
    schema = fields["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["name", "sex", "doses", "either"] and schema["additionalProperties"] is False
    assert schema["properties"]["name"]["type"] == "string"
    assert schema["properties"]["sex"] == {"type": ["string", "null"], "enum": ["f", "m", None]}
    dose = schema["properties"]["doses"]["items"]
    assert schema["properties"]["doses"]["type"] == ["array", "null"]
    assert (dose["required"], dose["additionalProperties"]) == (["mg"], False)
    assert schema["properties"]["either"]["anyOf"][1] == {"type": "null"}


def test_an_output_format_has_closed_objects_and_no_bounds():
    _, fields = sent(anthropic(), Request(messages=TALK, reply_limit=9, json_schema=LOOSE, schema_name="r"))
    schema = fields["output_config"]["format"]["schema"]
    assert schema["properties"]["name"] == {"type": "string"} and schema["additionalProperties"] is False
    assert schema["properties"]["doses"] == {
        "type": "array",
        "items": {"type": "object", "properties": {"mg": {"type": "number"}}, "additionalProperties": False},
    }
    assert schema["required"] == ["name"]


def test_a_schema_that_is_strict_already_stays_as_it_is():
    schema = PATIENT_RECORD.json_schema()
    assert strict(schema) == unbounded(schema) == schema
    assert LOOSE["properties"]["name"] == {"type": "string", "maxLength": 9}


def test_an_anthropic_request_keeps_the_system_message_apart():
    path, fields = sent(anthropic(), PLAIN)
    assert path == "/messages"
    assert fields == {
        "model": "teacher-1",
        "system": TALK[0].text,
        "messages": [{"role": "user", "content": "Größe?"}],
        "max_tokens": 100,
    }


def test_an_anthropic_extraction_asks_for_json_by_format_or_by_forced_tool():
    _, by_format = sent(anthropic(), JSON)
    assert by_format["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    _, by_tool = sent(anthropic(structured_output="tool"), JSON)
    assert by_tool["tools"] == [{"name": "patient_record", "input_schema": SCHEMA}]
    assert by_tool["tool_choice"] == {"type": "tool", "name": "patient_record"}
    assert "seed" not in by_tool


def test_extra_fields_of_the_configuration_are_sent_as_they_are():
    _, fields = sent(teacher(extra_body={"thinking": {"type": "disabled"}}), PLAIN)
    assert fields["thinking"] == {"type": "disabled"}


def test_a_message_that_utf8_cannot_say_is_still_sent():
    _, fields = sent(teacher(), Request(messages=(Message("user", "a\ud800b"),), reply_limit=1))
    assert fields["messages"][0]["content"] == "a\ufffdb"


def test_the_key_stands_in_the_header_that_the_configuration_names():
    bearer = headers(teacher(auth="bearer", api_key_env="K"), "sk-1")
    old = headers(anthropic(auth="x-api-key", api_key_env="K", protocol_version="2023-06-01"), "sk-1")
    assert bearer["Authorization"] == "Bearer sk-1" and "x-api-key" not in bearer
    assert old["x-api-key"] == "sk-1" and old["anthropic-version"] == "2023-06-01" and "Authorization" not in old
    assert "sk-1" not in str(headers(teacher(), "sk-1"))


def reply(payload, config=None):
    return decode(config or teacher(), json.dumps(payload).encode())


def test_an_openai_reply_gives_text_names_and_usage():
    usage = {
        "prompt_tokens": 900,
        "completion_tokens": 300,
        "prompt_tokens_details": {"cached_tokens": 512},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    found = reply(completion_body("Doctor: Grüß Gott", usage=usage))
    assert (found.text, found.finish) == ("Doctor: Grüß Gott", "stop")
    assert (found.served_model, found.request_id, found.fingerprint) == ("served-1", "chatcmpl-1", "fp_1")
    assert found.usage == Usage(prompt_tokens=900, cached_tokens=512, completion_tokens=300, reasoning_tokens=20)


def test_deepseek_names_its_cached_tokens_differently():
    usage = {"prompt_tokens": 900, "completion_tokens": 300, "prompt_cache_hit_tokens": 128, "prompt_cache_miss_tokens": 772}
    assert reply(completion_body(usage=usage)).usage == Usage(prompt_tokens=900, cached_tokens=128, completion_tokens=300)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9.0, "completion_tokens": 3.0}, (9, 0, 0, 3)),
        ({"prompt_tokens": 9, "total_tokens": 12}, (9, 0, 0, 3)),
        # reasoning that the completion leaves out and the total does not
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 20}, (9, 0, 0, 11)),
        # a gateway in front of Anthropic: its names, inside the OpenAI shape
        (
            {"prompt_tokens": 90, "completion_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 20},
            (90, 40, 20, 3),
        ),
        ({"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 400}}, (90, 90, 0, 3)),
        ({"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": None}, (90, 0, 0, 3)),
    ],
)
def test_forms_of_usage(usage, expected):
    found = reply(completion_body(usage=usage)).usage
    assert found is not None
    assert (found.prompt_tokens, found.cached_tokens, found.cache_write_tokens, found.completion_tokens) == expected


@pytest.mark.parametrize("prompt", [None, -1, 10**12, "9", True, 1.5])
def test_what_is_no_count_is_no_usage(prompt):
    assert reply(completion_body(usage={"prompt_tokens": prompt, "completion_tokens": 1})).usage is None


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"prompt_tokens": 1}])
def test_what_is_no_usage(usage):
    assert reply(completion_body(usage=usage)).usage is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "refusal"),
        ("tool_calls", "aborted"),
        ("function_call", "aborted"),
        ("insufficient_system_resource", "aborted"),
        ("abort", "aborted"),
        (None, "aborted"),
        ("new_reason", "aborted"),
        (7, "aborted"),
        ([], "aborted"),
    ],
)
def test_openai_finish_reasons(reason, finish):
    assert reply(completion_body(finish=reason)).finish == finish


def test_an_openai_refusal_text_is_a_refusal_whatever_the_finish_reason():
    payload = completion_body(None)
    payload["choices"][0]["message"]["refusal"] = "I can't help with that."
    assert (reply(payload).finish, reply(payload).text) == ("refusal", "")


def test_reasoning_is_not_part_of_the_text():
    payload = completion_body("the answer")
    payload["choices"][0]["message"] |= {"reasoning_content": "let me think", "reasoning": "hm"}
    assert reply(payload).text == "the answer"


def message(content, stop_reason="end_turn", **more):
    usage = {"input_tokens": 388, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 512, "output_tokens": 300}
    return {
        "id": "msg_1",
        "type": "message",
        "model": "m-1",
        "content": content,
        "stop_reason": stop_reason,
        "usage": usage,
        **more,
    }


def test_an_anthropic_reply_joins_text_blocks_and_sums_its_input():
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Doctor: "}, {"type": "text", "text": "Hi"}]
    found = reply(message(blocks), anthropic())
    assert (found.text, found.finish, found.request_id) == ("Doctor: Hi", "stop", "msg_1")
    assert found.usage == Usage(prompt_tokens=910, cached_tokens=512, cache_write_tokens=10, completion_tokens=300)


def test_the_answer_of_a_forced_tool_becomes_its_json_text():
    blocks = [{"type": "text", "text": "Here it is"}, {"type": "tool_use", "name": "record", "input": {"name": "Zoë"}}]
    found = reply(message(blocks, "tool_use"), anthropic(structured_output="tool"))
    assert (json.loads(found.text), found.finish) == ({"name": "Zoë"}, "stop")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
        ("pause_turn", "aborted"),
        (None, "aborted"),
    ],
)
def test_anthropic_stop_reasons(reason, finish):
    assert reply(message([], reason), anthropic()).finish == finish


@pytest.mark.parametrize(
    "body",
    [b"", b"   \n", b"<html>", b"null", b"[]", b'{"id": 1}', b'{"choices": []}', b'{"choices": [1]}', b'{"choices": [{}]}'],
)
def test_a_body_without_a_completion_is_not_a_reply(body):
    with pytest.raises(NotAReply):
        decode(teacher(), body)


def test_blank_lines_a_byte_order_mark_and_a_false_charset_do_no_harm():
    body = b"\n\r\n \n\xef\xbb\xbf\n" + json.dumps(completion_body("Größe"), ensure_ascii=False).encode()
    assert decode(teacher(), body).text == "Größe"


def test_a_body_nested_beyond_measure_is_not_a_reply():
    with pytest.raises(NotAReply):
        parse(b"[" * 200_000)


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": "7"}, [], "x", True]
)
def test_a_usage_that_makes_no_sense_counts_as_missing(usage):
    assert reply(completion_body(usage=usage)).usage is None


def test_half_a_surrogate_pair_in_an_answer_is_replaced():
    body = json.dumps(completion_body("x")).replace('"x"', '"\\ud83d!"').encode()
    assert decode(teacher(), body).text == "\ufffd!"


def test_model_lists_of_both_protocols():
    assert model_ids({"data": [{"id": "a"}, {"no": 1}, {"id": "b"}], "has_more": False}) == ["a", "b"]
    with pytest.raises(NotAReply):
        model_ids({"models": []})


@pytest.mark.parametrize(
    ("value", "kept"),
    [("req_01-a.b/c:d", "req_01-a.b/c:d"), (429, "429"), ("two words", ""), ("x" * 300, ""), (None, ""), (True, "")],
)
def test_only_what_looks_like_an_identifier_is_kept(value, kept):
    assert identifier(value) == kept


FIELDS = [
    "choices",
    "message",
    "content",
    "finish_reason",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "refusal",
    "model",
    "id",
    "type",
    "text",
    "input",
    "stop_reason",
    "input_tokens",
    "output_tokens",
    "output_tokens_details",
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from(["openai", "anthropic"]))
def test_any_json_is_a_reply_or_not_a_reply(payload, protocol):
    config = teacher() if protocol == "openai" else anthropic()
    try:
        found = decode(config, json.dumps(payload).encode())
    except NotAReply:
        return
    found.text.encode()
    assert found.finish in ("stop", "length", "refusal", "aborted")


@given(st.text(), st.text())
def test_any_text_survives_the_way_to_the_wire(system, user):
    for config in (teacher(), anthropic()):
        _, fields = sent(config, Request(messages=(Message("system", system), Message("user", user)), reply_limit=1))
        assert fields["messages"][-1]["content"] == user
