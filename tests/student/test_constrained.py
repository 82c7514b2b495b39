"""Decoding that can write nothing but records."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD
from medkd.store.conversations import ImportedRow
from medkd.store.files import open_store
from medkd.student.families import FAMILIES
from medkd.student.tokenizer import StudentTokenizer, make_tokenizer
from medkd.student.tokens import build_tokenizer
from tests.student.limited import limited_tokenizer
from tests.student.records_strategy import VALUES
from tests.student.test_tokenizer import LIMITED, TRAINED
from tests.student.trained import rows, tiny_student

pytestmark = pytest.mark.torch

BOTH = pytest.mark.parametrize("tokenizer", [LIMITED, TRAINED], ids=["limited", "trained"])
FAMILY = pytest.mark.parametrize("family", ["t5", "gpt2"])


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


LONG = "\n".join(f"Doctor: Number {number}?\nPatient: It is {number + 20} mg, I think." for number in range(30))


def test_every_window_of_a_long_conversation_is_answered_with_a_record_of_valid_values(tmp_path: Path) -> None:
    from medkd.stages.extract import extract
    from medkd.student.decode import Extractor

    student = tiny_student("gpt2", max_length=200)
    tokenizer = build_tokenizer(open_store("memory://m"), student, rows(), PATIENT_RECORD, Path("unused"))
    texts = [LONG, *(row["input"] for row in rows()[:3])]
    talks = [ImportedRow(conversation=text, source_id=str(place), record=None, topic="") for place, text in enumerate(texts)]
    model = talkative("gpt2", tokenizer, student, seed=1)
    # Inclined to end early enough that no window's answer is cut.
    model.generation_config.exponential_decay_length_penalty = (10, 1.5)
    found = {}
    for constrained in (False, True):
        output = tmp_path / f"{constrained}.jsonl"
        extractor = Extractor(model, tokenizer, constrained=constrained)
        extract(extractor, talks, output, batch_size=8, stop=threading.Event())
        found[constrained] = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["windows"] > 5 for line in found[True]] == [True, False, False, False]
    assert any(line["record"] is None or line.get("unanswered_windows") for line in found[False])
    for line in found[True]:
        problems = [problem for problem in line.get("bad_values", []) if "the same entry twice" not in problem]
        assert line["record"] is not None and "unanswered_windows" not in line and problems == []
    assert found[True][0]["record"] != PATIENT_RECORD.empty()


def test_without_the_package_the_flag_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from medkd.student.constrained import RecordGrammar

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"llguidance.*medkd\[constrained\]"):
        RecordGrammar(TRAINED)
