"""The configuration file: what ships loads, and every mistake is one line that says what to write instead."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd import config
from medkd.config import ModelConfigs, StudentConfig
from medkd.errors import ConfigError

FOLDER = Path(__file__).parent.parent / "configs"
SHIPPED: dict[str, Any] = json.loads((FOLDER / "model_configs.json").read_text(encoding="utf-8"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The shipped file with another value at a dotted path."""
    raw = copy.deepcopy(SHIPPED)
    *parents, last = path.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    place[last] = value
    return raw


def without(path: str) -> dict[str, Any]:
    raw = changed(path, None)
    *parents, last = path.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    del place[last]
    return raw


def problem(raw: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.parse(raw if isinstance(raw, str) else json.dumps(raw), "c.json")
    message = str(caught.value)
    assert message.startswith("c.json: ")
    assert "\n" not in message
    return message.removeprefix("c.json: ")


# --- what ships -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED["teacher_models"])
def test_every_shipped_teacher_loads_with_the_values_it_is_written_with(name: str) -> None:
    teacher = config.load(None).teacher_models[name].model_dump(mode="json", exclude_unset=True)
    assert teacher == SHIPPED["teacher_models"][name]


def teacher_like(**changes: Any) -> config.TeacherConfig:
    """A teacher as the file would give it."""
    raw = {"protocol": "openai", "base_url": "http://localhost:1/v1", "model": "big-1-mini", "auth": "none", **changes}
    return config.parse(json.dumps({**SHIPPED, "teacher_models": {"t": raw}})).teacher("t")


TRAITS = {
    "*": {"reply_limit_field": "max_completion_tokens", "thinking": {"reasoning_effort": "low"}},
    "big-*": {"structured_output": "json_schema", "takes_seed": True, "takes_temperature": False},
    "big-1*": {"thinking": {"reasoning_effort": "none"}},
    "big-1-mini": {"prices": {"input": 1.0, "output": 2.0}, "takes_temperature": True},
    "small-*": {"structured_output": "none"},
}


def test_a_model_takes_the_traits_of_all_entries_that_fit_it_the_closest_first() -> None:
    found = teacher_like(models=TRAITS, temperature=0.7)
    assert (found.reply_limit_field, found.structured_output, found.takes_seed) == ("max_completion_tokens", "json_schema", True)
    assert found.extra_body == {"reasoning_effort": "none"} and found.prices.input == 1.0 and found.temperature == 0.7
    assert found.models == {}
    sibling = teacher_like(models=TRAITS, temperature=0.7, model="big-2", prices={"input": 3.0, "output": 3.0})
    assert (sibling.temperature, sibling.extra_body, sibling.prices.input) == (None, {"reasoning_effort": "low"}, 3.0)


def test_what_is_written_at_the_teacher_wins_over_the_table() -> None:
    own = {"structured_output": "json_object", "takes_seed": False, "extra_body": {"reasoning_effort": "high"}}
    found = teacher_like(models=TRAITS, **own)
    assert (found.structured_output, found.takes_seed) == ("json_object", False)
    assert found.extra_body == {"reasoning_effort": "high"}


def test_a_teacher_without_a_table_stays_as_it_is() -> None:
    assert teacher_like(temperature=0.7).temperature == 0.7


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"models": TRAITS, "model": "other"}, "models: no entry has prices for 'other'"),
        ({"models": {"a*b": {}}}, "models: got 'a*b', expected a model's name"),
        ({"models": {"a": {"structured_output": "tool"}}}, "models.a.structured_output: got 'tool', allowed for openai"),
        ({"extra_headers": {"Authorization": "Bearer sk-canary"}}, "extra_headers: got 'Authorization'"),
        ({"extra_headers": {"x-tags": "a\nb: sk-canary"}}, "extra_headers: got 'x-tags'"),
        ({"protocol": "anthropic", "structured_output": "tool", "temperature": 1.5}, "temperature: got 1.5, expected 0 to 1"),
    ],
)
def test_a_table_or_header_that_cannot_work_is_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        teacher_like(**changes)
    assert f"teacher_models.t.{expected}" in str(caught.value) and "canary" not in str(caught.value)


def test_no_code_names_a_model() -> None:
    """Models change within months: they, and what they take, stand in the configuration alone."""
    named = {teacher["model"] for teacher in SHIPPED["teacher_models"].values() if teacher.get("auth") != "none"}
    named |= {name.rstrip("*") for teacher in SHIPPED["teacher_models"].values() for name in teacher.get("models", {})} - {""}
    for path in (FOLDER.parent / "medkd").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in named if f'"{name}' in text], path


@pytest.mark.parametrize("name", SHIPPED["student_models"])
def test_every_shipped_student_loads_with_the_values_it_is_written_with(name: str) -> None:
    student = config.load(None).student(name).model_dump(mode="json", exclude_unset=True)
    assert student == SHIPPED["student_models"][name]


def test_the_shipped_settings_load_and_say_how_many_samples_a_run_has() -> None:
    settings = config.load(FOLDER / "model_configs.json").generation_settings
    assert list(settings.conversation_topics) == SHIPPED["generation_settings"]["conversation_topics"]
    assert settings.num_samples == 20 * len(settings.conversation_topics)
    assert settings.model_copy(update={"total_samples": 7}).num_samples == 7


def test_the_schema_file_is_the_one_of_the_code_and_the_shipped_file_fits_it() -> None:
    schema = json.loads((FOLDER / "model_configs.schema.json").read_text(encoding="utf-8"))
    assert schema == config.json_schema(), "run: python -m medkd config schema > configs/model_configs.schema.json"
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(SHIPPED, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("student_models.t5.batch_size", "8"),
        ("student_models.t5.nonsense", 1),
        ("teacher_models.groq.protocol", "cohere"),
        ("teacher_models.groq.takes_seed", "yes"),
        ("teacher_models.openai.models.gpt-6-luna.prices.input", -1),
        ("generation_settings.conversation_topics", []),
        ("surplus", {}),
    ],
)
def test_schema_and_loader_refuse_the_same(path: str, value: Any) -> None:
    problem(changed(path, value))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(path, value), config.json_schema())


def test_a_custom_student_needs_four_keys_only() -> None:
    custom = {"model_name": "google/flan-t5-small", "max_length": 256, "batch_size": 2, "learning_rate": 1}
    raw = changed("student_models.custom", custom)
    student = config.parse(json.dumps(raw)).student("custom")
    assert student.model_dump(exclude_unset=True) == custom
    jsonschema.validate(raw, config.json_schema())
    assert StudentConfig(model_name="gpt2").batch_size == 8


def test_a_file_saved_with_a_byte_order_mark_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(SHIPPED), encoding="utf-8-sig")
    assert config.load(path) == config.load(None)


def test_the_hash_of_a_part_follows_its_values_and_nothing_else() -> None:
    student = config.load(None).student("t5")
    same = StudentConfig.model_validate(dict(reversed(student.model_dump().items())))
    assert config.config_hash(same) == config.config_hash(student)
    assert config.config_hash(student.model_copy(update={"batch_size": 9})) != config.config_hash(student)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("student_models.t5.batch_size", "8", 'got "8", expected: a valid integer'),
        ("student_models.t5.batch_size", 8.5, "got 8.5, expected: a valid integer"),
        ("student_models.t5.batch_size", True, "got true, expected: a valid integer"),
        ("student_models.t5.batch_size", 0, "got 0, expected: greater than 0"),
        ("student_models.t5.batch_size", None, "got null, expected: a valid integer"),
        ("student_models.t5.learning_rate", -1e-4, "got -0.0001, expected: greater than 0"),
        ("student_models.t5.warmup_ratio", 2, "got 2, expected: less than or equal to 1"),
        ("student_models.t5.zero_stage", 4, "got 4, expected: 0, 1, 2 or 3"),
        ("student_models.t5.model_name", "", 'got "", expected: have at least 1 character'),
        ("student_models.t5.architecture", "t5", 'got "t5", expected: an object'),
        ("student_models.tiny-t5.architecture.family", "bert", "got \"bert\", expected: 't5', 'gpt2' or 'llama'"),
        ("student_models.t5", 5, "got 5, expected: an object"),
        ("student_models", [], "got [], expected: an object"),
        ("teacher_models.groq.protocol", "cohere", "got \"cohere\", expected: 'openai' or 'anthropic'"),
        ("teacher_models.groq.base_url", "api.groq.com", "got \"api.groq.com\", expected: match pattern '^https?://'"),
        ("teacher_models.groq.takes_seed", "yes", 'got "yes", expected: a valid boolean'),
        ("teacher_models.groq.temperature", 3, "got 3, expected: less than or equal to 2"),
        ("teacher_models.groq.models.*.takes_seed", 1, "got 1, expected: a valid boolean"),
        ("teacher_models.groq.limits.max_concurrency", 0, "got 0, expected: greater than 0"),
        ("teacher_models.groq.limits.max_concurrency", 0, "got 0, expected: greater than 0"),
        ("teacher_models.groq.extra_body", [], "got [], expected: an object"),
        ("teacher_models.groq.structured_output", "tool", "got 'tool', allowed for openai: json_schema, json_object, none"),
        ("teacher_models.anthropic.structured_output", "json_schema", "allowed for anthropic: output_config, tool, none"),
        ("teacher_models.groq.api_key_env", None, "got null, expected a variable name; or set auth to"),
        ("generation_settings.conversation_topics", [], "got [], expected: have at least 1 item"),
        ("generation_settings.conversation_topics", ["gout", "gout"], "got 'gout' twice, expected each once"),
        ("generation_settings.patient_moods", ["calm", "calm"], "got 'calm' twice, expected each once"),
        ("generation_settings.held_out_topics", ["Gout"], "got 'Gout', allowed: the words of conversation_topics"),
        ("generation_settings.conversation_length.max_exchanges", 1, "got 1, expected at least min_exchanges = 4"),
        ("student_models.tiny-t5.architecture.width", 130, "got 130, expected a multiple of heads = 4"),
        ("student_models.tiny-llama.prompt_template", "chat", "got chat with architecture, expected plain"),
        ("student_models.llama.prompt_template", "chatml", "got \"chatml\", expected: 'plain' or 'chat'"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed(path: str, value: Any, expected: str) -> None:
    message = problem(changed(path, value))
    assert message.startswith(f"{path}: ")
    assert expected in message


@pytest.mark.parametrize("word", ["", " ", " gout", "gout ", "gout\nCase: 0", "gout\r"])
def test_a_topic_or_mood_is_one_line_of_a_prompt(word: str) -> None:
    for key in ("conversation_topics", "patient_moods"):
        assert problem(changed(f"generation_settings.{key}", [word])).startswith(f"generation_settings.{key}.0: got ")


@pytest.mark.parametrize(
    ("path", "close"),
    [
        ("student_models.t5.learning_rte", "learning_rate"),
        ("teacher_models.groq.limits.request_per_minute", "requests_per_minute"),
        ("student_models.tiny-t5.architecture.head", "heads"),
        ("generation_settings.conversation_length.max_exchange", "max_exchanges"),
        ("student_modles", "student_models"),
    ],
)
def test_an_unknown_key_is_named_with_its_neighbours_and_the_nearest_one(path: str, close: str) -> None:
    message = problem(changed(path, 1))
    assert message.startswith(f"{path}: unknown key, allowed here: ")
    assert message.endswith(f"did you mean {close!r}?")


@pytest.mark.parametrize("path", ["teacher_models", "teacher_models.groq.model", "student_models.tiny-t5.architecture.layers"])
def test_a_missing_key_is_named(path: str) -> None:
    assert problem(without(path)).startswith(f"{path}: missing, expected a value")


def test_of_several_mistakes_the_first_is_told_and_the_others_counted() -> None:
    raw = changed("student_models.t5.batch_size", 0)
    raw["student_models"]["gpt2"]["batch_size"] = 0
    assert problem(raw).endswith("(and 1 more)")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("teacher_models.groq.api_key", "sk-very-secret"),
        ("teacher_models.groq.api_key_env", "sk-very-secret"),
        ("teacher_models.groq.base_url", "https://user:very-secret@api.groq.com/v1"),
    ],
)
def test_a_key_that_was_put_into_the_file_is_refused_and_not_shown(path: str, value: str) -> None:
    message = problem(changed(path, value))
    assert message.startswith(f"{path}: ")
    assert "very-secret" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not JSON at line 1, column 1"),
        ('{\n "teacher_models": {,\n}', "not JSON at line 2, column 21"),
        ("[]", "got a JSON list, expected an object with teacher_models, student_models, generation_settings"),
        ('{"a": {"batch_size": 1, "batch_size": 2}}', "key 'batch_size' stands twice in one object, expected once"),
        ('{"a": NaN}', "got NaN, which is no JSON"),
        ('{"a": [-Infinity]}', "got -Infinity, which is no JSON"),
    ],
)
def test_what_is_no_json_says_where(text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


def test_a_number_that_is_no_finite_one_is_refused_everywhere() -> None:
    for path in ("student_models.t5.max_gradient_norm", "teacher_models.groq.temperature"):
        text = json.dumps(changed(path, 12345.5)).replace("12345.5", "1e999")
        assert problem(text).startswith(f"{path}: ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@settings(max_examples=30)
def test_no_value_anywhere_brings_anything_but_a_configuration_or_its_error(value: Any) -> None:
    for path in ("student_models.t5.architecture", "teacher_models.groq.extra_body", "generation_settings", "surplus"):
        try:
            assert isinstance(config.parse(json.dumps(changed(path, value))), ModelConfigs)
        except ConfigError as error:
            assert "\n" not in str(error)


# --- names and files --------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_told_with_the_known_and_the_nearest_one() -> None:
    configs = config.load(None)
    with pytest.raises(ConfigError, match=r"teacher_models: got 'grog', known: anthropic, deepseek, .*; did you mean 'groq'\?"):
        configs.teacher("grog")
    with pytest.raises(ConfigError, match=r"student_models: got 'tiny-t', known: .*tiny-t5; did you mean 'tiny-t5'\?"):
        configs.student("tiny-t")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read \(No such file or directory\); pass --config PATH"):
        config.load(tmp_path / "absent.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe4"}')
    with pytest.raises(ConfigError, match=r"latin\.json: not UTF-8 text"):
        config.load(tmp_path / "latin.json")


def test_a_configuration_cannot_be_changed_after_it_was_read() -> None:
    student = config.load(None).student("t5")
    with pytest.raises(ValueError, match="frozen"):
        student.batch_size = 1
