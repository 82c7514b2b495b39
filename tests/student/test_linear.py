from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.records import NOT_PROVIDED, PATIENT_RECORD, RecordSchema
from medkd.student.linear import BrokenLinearError, LinearForm
from tests.student.records_strategy import NESTED, SCHEMAS, VALUES, records_of

FORM = LinearForm(PATIENT_RECORD)


@given(data=st.data(), schema=st.sampled_from(SCHEMAS))
def test_any_record_is_read_back_as_it_was(data: st.DataObject, schema: RecordSchema) -> None:
    record = data.draw(records_of(schema))
    form = LinearForm(schema)
    assert form.read(form.write(record)) == record


@given(text=VALUES, schema=st.sampled_from(SCHEMAS))
def test_any_text_gives_a_record_of_the_schema_or_an_error(text: str, schema: RecordSchema) -> None:
    form = LinearForm(schema)
    try:
        record = form.read(text)
    except BrokenLinearError:
        return
    assert form.read(form.write(record)) == record


def test_a_record_reads_like_a_sentence_without_braces() -> None:
    record = PATIENT_RECORD.empty()
    record["patient_details"]["age"] = "54"
    record["medical_history"]["allergies"] = ["none"]
    record["prescription"] = [
        {"drug": "naproxen", "dose": "500 mg", "frequency": NOT_PROVIDED, "duration": "a week"},
        {"drug": "rest [sic]", "dose": NOT_PROVIDED, "frequency": NOT_PROVIDED, "duration": NOT_PROVIDED},
    ]
    assert FORM.write(record) == (
        "[age] 54[allergies] none[prescription][drug] naproxen[dose] 500 mg[prescription.duration] a week"
        "[prescription][drug] rest [[sic]"
    )


def test_the_empty_record_is_the_empty_text() -> None:
    assert FORM.write(PATIENT_RECORD.empty()) == ""
    assert FORM.read("") == PATIENT_RECORD.empty()


def test_tags_are_short_but_never_shared() -> None:
    assert LinearForm(NESTED).tags == (
        "[note]",
        "[duration]",
        "[tags]",
        "[visit.duration]",
        "[visit.tags]",
        "[drug]",
        "[drug.drug]",
        "[drug.tags]",
        "[drug.duration]",
        "[plan]",
        "[step]",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("54", "before the first tag"),
        ("[height] 180 cm", "no field has"),
        ("[age] 54[age] 55", r"\[age\] twice"),
        ("[drug] naproxen", r"\[drug\] before an item"),
        ("[prescription] naproxen", "right after"),
        ("[age] 5[4", "ends nowhere"),
        ("[prescription][drug] a[drug] b", r"\[drug\] twice"),
    ],
)
def test_a_broken_text_is_told_apart(text: str, problem: str) -> None:
    with pytest.raises(BrokenLinearError, match=problem):
        FORM.read(text)
