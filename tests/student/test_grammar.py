"""What a constrained student may write: every valid record, and nothing that is none."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.quality.schema import bad_values
from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Field, Record, RecordSchema
from medkd.rules import Rule
from medkd.student.characters import EVERY, Spelling, common, matching, others, union
from medkd.student.grammar import patterns_not_held_to, record_grammar
from medkd.student.patterns import NotRegularError, values_with
from medkd.student.tokenizer import StudentTokenizer
from tests.schema_strategy import ORDERS
from tests.student.records_strategy import NESTED, VALUES, records_of
from tests.student.test_tokenizer import LIMITED, TRAINED

llguidance = pytest.importorskip("llguidance")

BOTH = pytest.mark.parametrize("tokenizer", [LIMITED, TRAINED], ids=["limited", "trained"])
END = 256


class _Bytes:
    """A vocabulary of bytes, as llguidance asks for one."""

    tokens, special_token_ids = [*(bytes([byte]) for byte in range(256)), b""], [END]
    eos_token_id, bos_token_id = END, None

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


VOCABULARY = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()))


@lru_cache
def grammar_of(tokenizer: StudentTokenizer, schema: RecordSchema) -> Any:
    form = StudentTokenizer(tokenizer.tokenizer, tokenizer.form, schema)
    matcher = llguidance.LLMatcher(VOCABULARY, record_grammar(form.linear, form.form.escapes, form.says))
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def may_write(grammar: Any, text: str) -> bool:
    matcher = grammar.deep_copy()
    return bool(matcher.try_consume_tokens(list(text.encode())) == len(text.encode()) and matcher.is_accepting())


def written(tokenizer: StudentTokenizer, schema: RecordSchema, record: Record) -> str:
    linear = StudentTokenizer(tokenizer.tokenizer, tokenizer.form, schema).linear
    return tokenizer.form.escapes.write(linear.write(record), tokenizer.says)


@BOTH
@settings(max_examples=40, deadline=None)
@given(record=records_of(NESTED))
def test_a_record_may_be_written_if_its_values_are_valid(tokenizer: StudentTokenizer, record: Record) -> None:
    problems = [problem for problem in bad_values(record, NESTED) if "the same entry twice" not in problem]
    tidy = all(value == value.strip() and value != "" for _, value in NESTED.values(record))
    unsaid = any(value != NOT_PROVIDED and value.lower() == "not provided" for _, value in NESTED.values(record))
    text = written(tokenizer, NESTED, record)
    assert may_write(grammar_of(tokenizer, NESTED), text) == (not problems and tidy and not unsaid)


def walk(grammar: Any, chance: random.Random) -> str:
    """A text that the grammar allows: whatever letter, and the end as soon as chance wants it."""
    matcher, text = grammar.deep_copy(), b""
    while True:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[: END + 1]
        allowed = np.flatnonzero(bits)
        if bits[END] and (len(text) > 60 or chance.random() < 0.02):
            return text.decode()
        # Brackets and letters rather than bytes of rare characters, so that many values are said.
        likely = [byte for byte in allowed if byte < 128] or [byte for byte in allowed if byte != END]
        byte = int(chance.choice([91] if 91 in likely and chance.random() < 0.2 else likely))
        text += bytes([byte])
        assert len(text) < 5000 and matcher.consume_token(byte)


@BOTH
@pytest.mark.parametrize("schema", [PATIENT_RECORD, ORDERS], ids=lambda schema: schema.name)
def test_whatever_is_written_is_a_record_whose_values_the_schema_allows(
    tokenizer: StudentTokenizer, schema: RecordSchema
) -> None:
    linear = StudentTokenizer(tokenizer.tokenizer, tokenizer.form, schema).linear
    said = set()
    for seed in range(40):
        escaped = walk(grammar_of(tokenizer, schema), random.Random(seed))
        record = linear.read(tokenizer.form.escapes.read(escaped))
        assert [problem for problem in bad_values(record, schema) if "the same entry twice" not in problem] == []
        said |= {path for path, value in schema.values(record) if value != NOT_PROVIDED}
    assert said == set(schema.leaves())


PATTERNS = [
    *(rule.pattern for rule in PATIENT_RECORD.rules.values() if rule.pattern),
    r"^\d{4}-\d{2}-\d{2}$",
    r"^(left|right)\b",
    r"\bone\b",
    r"\B-",
    r"^a|b$|\bc\b",
    r"[^a-z]",
    r"(?i)^[äß]+$",
    r"^\S+ \S+$",
    r"-\b",
    r"^$",
    r"\[|\|",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@BOTH
def test_a_pattern_allows_the_values_that_it_is_found_in(tokenizer: StudentTokenizer, pattern: str) -> None:
    schema = RecordSchema(
        name="one", version=1, fields=(Field(name="value", kind="text", description="", rule=Rule(pattern=pattern)),)
    )
    form = StudentTokenizer(tokenizer.tokenizer, tokenizer.form, schema)
    if patterns_not_held_to(form.linear, form.form.escapes, form.says):
        assert pattern == r"\B-"
        return
    grammar = grammar_of(tokenizer, schema)

    @settings(max_examples=40, deadline=None)
    @given(value=st.one_of(st.from_regex(pattern), VALUES, st.text("abc-one 12[|", min_size=1)))
    def check(value: str) -> None:
        if value == value.strip() and value.lower() != "not provided":
            record = {"value": value}
            text = written(tokenizer, schema, record)
            assert may_write(grammar, text) == (bad_values(record, schema) == []), value

    check()


@BOTH
def test_lists_of_values_lengths_and_counts_are_held_to(tokenizer: StudentTokenizer) -> None:
    colours, size = Rule(enum=("red", "dark blue [navy]")), Rule(min_length=2, max_length=3)
    schema = RecordSchema(
        name="bounds",
        version=1,
        fields=(
            Field(name="colour", kind="text", description="", rule=colours),
            Field(name="size", kind="text", description="", rule=size),
            Field(name="marks", kind="list", description="", rule=Rule(max_items=2)),
            Field(
                name="parts",
                kind="items",
                description="",
                rule=Rule(max_items=1),
                fields=(
                    Field(name="part", kind="text", description=""),
                    Field(name="shades", kind="list", description="", rule=colours),
                ),
            ),
        ),
    )
    grammar, silent = grammar_of(tokenizer, schema), schema.empty()

    def allowed(**said: Any) -> bool:
        return may_write(grammar, written(tokenizer, schema, {**silent, **said}))

    assert allowed() and allowed(colour="dark blue [navy]") and not allowed(colour="blue") and not allowed(colour="Red")
    assert [allowed(size="x" * count) for count in (1, 2, 3, 4)] == [False, True, True, False]
    assert allowed(size="[[|") and not allowed(size="[[||")
    assert allowed(marks=["a", "b"]) and not allowed(marks=["a", "b", "c"])
    assert allowed(marks=["none"]) and not allowed(marks=["none", "a"]) and not allowed(marks=["a", "None"])
    assert not allowed(marks=["not provided"])
    part = {"part": "lid", "shades": ["none"]}
    assert allowed(parts=[part]) and not allowed(parts=[part, {**part, "part": "box"}])
    assert not allowed(parts=[{"part": NOT_PROVIDED, "shades": []}]) and not allowed(parts=[{**part, "shades": ["pink"]}])


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(a)\1", r"a\bb?", r"(?:^a)+", r"x(?i:a)", "(?>a)"])
def test_what_is_no_regular_expression_of_this_kind_is_said_and_not_guessed(pattern: str) -> None:
    with pytest.raises(NotRegularError):
        values_with(pattern, Spelling(TRAINED.form.escapes, TRAINED.says))


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_ranges_are_sets(one: set[int], other: set[int]) -> None:
    def ranges(numbers: set[int]) -> Any:
        return common(EVERY, tuple((number, number) for number in sorted(numbers)))

    def numbers(ranges: Any) -> set[int]:
        return {number for low, high in ranges for number in range(low, min(high, 200) + 1)}

    assert numbers(common(ranges(one), ranges(other))) == one & other
    assert numbers(union(ranges(one), ranges(other))) == one | other
    assert numbers(others(ranges(one))) == set(range(201)) - one


@given(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF))
@settings(max_examples=10, deadline=None)
def test_numbered_escapes_are_those_of_the_set(low: int, high: int) -> None:
    low, high = sorted((low, high))
    spelling = Spelling(TRAINED.form.escapes, TRAINED.says)
    expression = re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: f"\\U{int(match[1], 16):08x}", spelling.one_of(((low, high),)))
    sign = TRAINED.form.escapes.sign
    for code in {low, high, low - 1, high + 1, (low + high) // 2} & set(range(0x110000)):
        sayable = bool(common(((code, code),), others(matching("[\x00-\x1f\x7f-\x9f\ud800-\udfff[]"))))
        found = bool(expression and re.fullmatch(expression, f"{sign}u{code:x}{sign}"))
        assert found == (low <= code <= high and sayable)
