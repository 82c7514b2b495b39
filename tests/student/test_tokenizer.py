from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD
from medkd.student.families import FAMILIES, SEPARATOR
from medkd.student.linear import LinearForm
from medkd.student.tokenizer import DoesNotFitError, StudentForm, StudentTokenizer, make_tokenizer, train_tokenizer
from tests.quality.examples import CONVERSATION, RECORD
from tests.student.limited import limited_tokenizer
from tests.student.records_strategy import NESTED, VALUES, records_of


def student_of(family: str, tokenizer: Any, **changes: Any) -> StudentTokenizer:
    student = StudentConfig(model_name="test", **changes)
    texts = [CONVERSATION, "a {b} <c>"]
    return make_tokenizer(tokenizer, family=FAMILIES[family], student=student, schema=PATIENT_RECORD, texts=texts)


def trained(vocabulary: int = 400) -> Any:
    tags = [*LinearForm(PATIENT_RECORD).tags, SEPARATOR]
    return train_tokenizer([CONVERSATION] * 3, tags=tags, vocabulary=vocabulary)


LIMITED = student_of("encoder-decoder", limited_tokenizer(), max_length=4096, max_answer_length=1024)
TRAINED = student_of("causal", trained())
BOTH = pytest.mark.parametrize("tokenizer", [LIMITED, TRAINED], ids=["limited", "trained"])


def test_the_limited_tokenizer_really_loses_text() -> None:
    raw = limited_tokenizer()
    for text in ("{", "a\nb", "a  b", " a", "<", "🧬"):
        assert raw.decode(raw(text, add_special_tokens=False)["input_ids"]) != text


@BOTH
@given(text=VALUES)
def test_any_text_comes_back_from_the_tokens(tokenizer: StudentTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@BOTH
@settings(max_examples=50)
@given(record=records_of(PATIENT_RECORD))
def test_any_record_comes_back_from_the_tokens(tokenizer: StudentTokenizer, record: dict[str, Any]) -> None:
    text = tokenizer.decode(tokenizer.encode(tokenizer.linear.write(record)))
    assert tokenizer.record(text) == record


@BOTH
@given(text=VALUES)
def test_the_names_of_special_tokens_inside_a_text_are_text(tokenizer: StudentTokenizer, text: str) -> None:
    special = {tokenizer.end, tokenizer.pad}
    assert not special & set(tokenizer.encode(f"{text}<end></s><pad>"))


@BOTH
def test_a_saved_tokenizer_says_the_same(tokenizer: StudentTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = StudentTokenizer.load(tmp_path)
    assert loaded.form == tokenizer.form
    assert loaded.encode(CONVERSATION + "{ }  \n") == tokenizer.encode(CONVERSATION + "{ }  \n")


def test_each_tag_is_one_token_of_a_trained_tokenizer() -> None:
    text = TRAINED.linear.write(RECORD)
    ids = TRAINED.encode(text)
    pieces = [TRAINED.decode([id_]) for id_ in ids]
    assert set(TRAINED.linear.tags) - {"[name]"} <= {*pieces, "[name]"}
    assert " [" not in pieces


def test_line_ends_cost_two_characters_where_they_cannot_be_said() -> None:
    sign = LIMITED.form.escapes.sign
    assert LIMITED.form.escapes.write("a\nb", LIMITED.says) == f"a{sign}nb"


def test_loss_is_taken_on_the_answer_and_its_end_alone() -> None:
    answer = [*TRAINED.encode(TRAINED.linear.write(RECORD)), TRAINED.end]
    example = TRAINED.example(CONVERSATION, RECORD)
    assert example.labels == [-100] * (len(example.input_ids) - len(answer)) + answer
    assert example.input_ids[-len(answer) :] == answer
    seq2seq = LIMITED.example(CONVERSATION, RECORD)
    assert LIMITED.tokenizer.decode(seq2seq.labels[-1:]) == "</s>"
    assert LIMITED.record(LIMITED.decode(seq2seq.labels)) == RECORD
    assert LIMITED.decode(seq2seq.input_ids) == CONVERSATION


@pytest.mark.parametrize("family", ["encoder-decoder", "causal"])
def test_a_prompt_is_how_the_training_example_begins(family: str) -> None:
    tokenizer = student_of(family, trained())
    prompt = tokenizer.prompt(CONVERSATION)
    assert tokenizer.example(CONVERSATION, RECORD).input_ids[: len(prompt)] == prompt


@pytest.mark.parametrize("family", ["encoder-decoder", "causal"])
def test_what_fits_exactly_is_taken_and_one_token_more_is_set_aside(family: str) -> None:
    whole = student_of(family, trained()).example(CONVERSATION, RECORD)
    answer = sum(label >= 0 for label in whole.labels)
    exact = student_of(family, trained(), max_length=len(whole.input_ids), max_answer_length=answer)
    assert exact.example(CONVERSATION, RECORD) == whole
    short = student_of(family, trained(), max_length=len(whole.input_ids) - 1, max_answer_length=answer)
    with pytest.raises(DoesNotFitError, match="conversation_too_long"):
        short.example(CONVERSATION, RECORD)
    terse = student_of(family, trained(), max_length=len(whole.input_ids), max_answer_length=answer - 1)
    with pytest.raises(DoesNotFitError, match="answer_too_long"):
        terse.example(CONVERSATION, RECORD)


@given(st.text(max_size=40))
def test_any_answer_of_a_model_is_a_record_or_none(text: str) -> None:
    record = LIMITED.record(LIMITED.decode(LIMITED.tokenizer(text)["input_ids"]))
    assert record is None or set(record) == set(PATIENT_RECORD.empty())


def test_a_tokenizer_without_an_end_is_refused() -> None:
    raw = limited_tokenizer()
    raw.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-text token"):
        student_of("causal", raw)


def test_a_folder_without_a_form_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no student of medkd"):
        StudentTokenizer.load(tmp_path)


def test_a_tokenizers_folder_brings_a_schema_that_medkd_does_not_ship(tmp_path: Path) -> None:
    raw = train_tokenizer([CONVERSATION] * 3, tags=[*LinearForm(NESTED).tags, SEPARATOR], vocabulary=400)
    student = StudentConfig(model_name="test")
    made = make_tokenizer(raw, family=FAMILIES["causal"], student=student, schema=NESTED, texts=[CONVERSATION])
    made.save(tmp_path)
    loaded = StudentTokenizer.load(tmp_path)
    record = NESTED.empty() | {"note": "rest", "drug": [{"drug": "aspirin", "tags": ["new"], "duration": "a week"}]}
    assert loaded.form.fields == NESTED
    assert loaded.record(loaded.linear.write(record)) == record


def test_a_form_without_a_schemas_document_takes_the_shipped_one_by_name(tmp_path: Path) -> None:
    replace(TRAINED.form, record_schema=None).write(tmp_path)
    assert StudentForm.read(tmp_path).fields == PATIENT_RECORD
    replace(TRAINED.form, record_schema=None, schema="unheard").write(tmp_path)
    with pytest.raises(ConfigError, match="unheard"):
        _ = StudentForm.read(tmp_path).fields
