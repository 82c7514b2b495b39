"""Decoding that can write nothing but records."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD, RecordSchema
from medkd.store.conversations import ImportedRow
from medkd.store.files import open_store
from medkd.student.families import FAMILIES
from medkd.student.tokenizer import StudentTokenizer, make_tokenizer
from medkd.student.tokens import build_tokenizer
from tests.student.limited import limited_tokenizer
from tests.student.records_strategy import SCHEMAS, VALUES, records_of
from tests.student.test_tokenizer import LIMITED, TRAINED
from tests.student.trained import rows, tiny_student

pytestmark = pytest.mark.torch

BOTH = pytest.mark.parametrize("tokenizer", [LIMITED, TRAINED], ids=["limited", "trained"])
FAMILY = pytest.mark.parametrize("family", ["t5", "gpt2"])


def with_schema(tokenizer: StudentTokenizer, schema: RecordSchema) -> StudentTokenizer:
    return StudentTokenizer(tokenizer.tokenizer, tokenizer.form, schema)


def pattern_of(tokenizer: StudentTokenizer) -> re.Pattern[str]:
    from medkd.student.constrained import record_pattern

    return re.compile(record_pattern(tokenizer.linear, tokenizer.form.escapes, tokenizer.says))


@BOTH
@settings(max_examples=25, deadline=None)
@given(data=st.data(), schema=st.sampled_from(SCHEMAS))
def test_every_record_may_be_written(tokenizer: StudentTokenizer, data: st.DataObject, schema: RecordSchema) -> None:
    tokenizer = with_schema(tokenizer, schema)
    text = tokenizer.linear.write(data.draw(records_of(schema)))
    assert pattern_of(tokenizer).fullmatch(tokenizer.form.escapes.write(text, tokenizer.says))


@BOTH
@settings(max_examples=25, deadline=None)
@given(data=st.data(), schema=st.sampled_from(SCHEMAS))
def test_what_may_be_written_is_a_record(tokenizer: StudentTokenizer, data: st.DataObject, schema: RecordSchema) -> None:
    tokenizer = with_schema(tokenizer, schema)
    escaped = data.draw(st.from_regex(pattern_of(tokenizer), fullmatch=True))
    assert tokenizer.record(tokenizer.form.escapes.read(escaped)) is not None


@BOTH
@settings(max_examples=25, deadline=None)
@given(text=VALUES)
def test_tokens_are_known_by_the_bytes_they_add(tokenizer: StudentTokenizer, text: str) -> None:
    from medkd.student.constrained import token_bytes

    escaped = tokenizer.form.escapes.write(f"[age] {text}", tokenizer.says)
    ids = tokenizer.tokenizer(escaped, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if tokenizer.tokenizer.decode(ids) == escaped:
        vocabulary = token_bytes(tokenizer.tokenizer)
        assert b"".join(vocabulary[id_] for id_ in ids).decode().removeprefix(" ") == escaped


def talkative(family: str, tokenizer: StudentTokenizer, student: StudentConfig, seed: int) -> Any:
    """A random model that writes at random, and is more and more inclined to end."""
    import torch

    from medkd.student.models import make_model

    model = make_model(open_store("memory://m"), student, tokenizer, scratch=Path("unused"), seed=seed, dtype=torch.float32)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(seed)) * 0.3)
    model.generation_config.exponential_decay_length_penalty = (30, 1.1)
    return model


@FAMILY
@pytest.mark.parametrize("limited", [False, True], ids=["bytes", "sentencepiece"])
def test_a_student_that_never_learned_writes_records_all_the_same(family: str, limited: bool) -> None:
    from medkd.student.decode import Extractor

    student = tiny_student(family, max_length=512)
    if limited:
        kind = "encoder-decoder" if family == "t5" else "causal"
        texts = [row["input"] for row in rows()]
        tokenizer = make_tokenizer(
            limited_tokenizer(), family=FAMILIES[kind], student=student, schema=PATIENT_RECORD, texts=texts
        )
    else:
        tokenizer = build_tokenizer(open_store("memory://m"), student, rows(), PATIENT_RECORD, Path("unused"))
    ended = wrong = 0
    said = set()
    for seed in range(2):
        model = talkative(family, tokenizer, student, seed)
        conversations = [row["input"] for row in rows()]
        free = Extractor(model, tokenizer).extract(conversations, max_answer_length=120)
        bound = Extractor(model, tokenizer, constrained=True).extract(conversations, max_answer_length=120)
        wrong += sum(one.record is None and one.cut is None for one in free)
        for one in bound:
            assert (one.record is not None) == (one.cut is None), one.raw_text
            ended += one.cut is None
            said.add(one.raw_text)
        (alone,) = Extractor(model, tokenizer, constrained=True).extract(conversations[:1], max_answer_length=120)
        assert alone.raw_text == bound[0].raw_text
    assert wrong, "left to itself it wrote records, so this test shows nothing"
    assert ended and len(said) > 2


def test_values_that_the_schema_does_not_allow_are_named_beside_the_record(tmp_path: Path) -> None:
    from medkd.stages.extract import extract
    from medkd.student.decode import Extractor

    student = tiny_student("gpt2", max_length=512)
    tokenizer = build_tokenizer(open_store("memory://m"), student, rows(), PATIENT_RECORD, Path("unused"))
    talks = [
        ImportedRow(conversation=row["input"], source_id=str(place), record=None, topic="") for place, row in enumerate(rows())
    ]
    extractor = Extractor(talkative("gpt2", tokenizer, student, seed=0), tokenizer, constrained=True)
    done = extract(extractor, talks, tmp_path / "out.jsonl", batch_size=5, stop=threading.Event())
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    invented = [line for line in lines if line["record"] and line["record"]["patient_details"]["sex"] != "NOT PROVIDED"]
    assert invented and done.outcomes["record_with_bad_values"] >= len(invented)
    for line in invented:
        assert any(problem.startswith("patient_details.sex: ") for problem in line["bad_values"])


def test_without_the_package_the_flag_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from medkd.student.constrained import RecordGrammar

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"llguidance.*medkd\[constrained\]"):
        RecordGrammar(TRAINED)
