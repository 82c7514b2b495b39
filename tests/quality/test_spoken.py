"""Spoken text in its normal form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkd.quality.spoken import normal_form, tokens


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("fifty-four", "54"),
        ("twenty milligrams", "20 mg"),
        ("one hundred and twenty five micrograms", "125 mcg"),
        ("a hundred units", "100 units"),
        ("two thousand five hundred IU", "2,500 units"),
        ("one point five mg", "1.5 mg"),
        ("point five mg", "0.5 mg"),
        ("12 . 5 mg", "12.5 mg"),
        ("12. 5 mg", "12.5 mg"),
        (".50 ml", "0.5 mL"),
        ("two and a half tablets", "2.5 tablets"),
        ("500mg", "500 milligrams"),
        ("A D H D", "ADHD"),
        ("C.O.P.D.", "copd"),
        ("the patient’s allergies", "the patient allergy"),
        ("ＦＵＬＬ width", "full width"),
        ("once daily", "once day"),
        ("5 %", "five percent"),
    ],
)
def test_spoken_and_written_form_are_one(spoken: str, written: str) -> None:
    assert normal_form(spoken) == normal_form(written)


@pytest.mark.parametrize(
    ("one", "other"),
    [("20 mg", "2 mg"), ("1.5 mg", "15 mg"), ("20 mg", "20 mcg"), ("fifteen", "fifty"), ("Marie", "Mary"), ("0.5", "5")],
)
def test_different_facts_stay_different(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


def test_a_full_stop_before_a_number_is_no_decimal_point() -> None:
    assert tokens("I took 2. 5 days later it was gone.")[2:5] == ("2", "5", "day")
    assert tokens("at that point five people came")[2:4] == ("point", "5")


@given(st.text())
def test_any_text_has_a_normal_form_that_is_its_own_normal_form_in_letter_case(text: str) -> None:
    assert tokens(text.upper().lower()) == tokens(text.upper().lower())
    assert all(word and word.strip() == word for word in tokens(text))


@given(st.integers(0, 9999))
def test_digits_stand_for_themselves(number: int) -> None:
    assert tokens(str(number)) == (str(number),)
