"""One conversation with its record, ways to change it, and a strategy for arbitrary valid records."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from medkd.records import NOT_PROVIDED

CONVERSATION = """Doctor: Good morning, Ms. Clarke. How old are you now?
Patient: Fifty-four. I work as a school teacher.
Doctor: Any allergies?
Patient: No, none that I know of.
Doctor: Do you take any medicines?
Patient: Just metformin, five hundred milligrams, for my type two diabetes.
Doctor: And your family?
Patient: My mother had high blood pressure.
Doctor: What brings you in?
Patient: I've been short of breath and dizzy for three weeks.
Doctor: It looks like hypertension. I'll prescribe lisinopril, twelve point five milligrams, once daily for thirty days."""

RECORD: dict[str, Any] = {
    "patient_details": {"name": "Ms. Clarke", "age": "54", "sex": "female", "occupation": "school teacher"},
    "medical_history": {
        "conditions": ["type 2 diabetes"],
        "medications": ["metformin"],
        "allergies": ["none"],
        "family_history": ["high blood pressure"],
    },
    "current_diagnosis": {
        "condition": "hypertension",
        "symptoms": ["shortness of breath", "dizziness"],
        "duration": "three weeks",
    },
    "prescription": [{"drug": "lisinopril", "dose": "12.5 mg", "frequency": "once daily", "duration": "thirty days"}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """RECORD with another value at a dotted path; `prescription[].dose` is the first item's."""
    record = copy.deepcopy(RECORD)
    *groups, last = path.replace("[]", ".0").split(".")
    place: Any = record
    for group in groups:
        place = place[int(group)] if group.isdigit() else place[group]
    place[last] = value
    return record


_words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=12).filter(
    lambda word: word == word.strip() and word.lower() not in ("none", "not provided")
)
_text = _words | st.just(NOT_PROVIDED)
_list = st.just(["none"]) | st.lists(_words, max_size=4, unique_by=str.lower)
_item = st.fixed_dictionaries(
    {"drug": _words, "dose": st.sampled_from(["5 mg", "one tablet", NOT_PROVIDED]), "frequency": _text, "duration": _text}
)


def records() -> st.SearchStrategy[dict[str, Any]]:
    """Any valid record of the schema that ships."""
    return st.fixed_dictionaries(
        {
            "patient_details": st.fixed_dictionaries(
                {
                    "name": _text,
                    "age": st.integers(0, 120).map(str) | st.just(NOT_PROVIDED),
                    "sex": st.sampled_from(["male", "female", NOT_PROVIDED]),
                    "occupation": _text,
                }
            ),
            "medical_history": st.fixed_dictionaries(
                dict.fromkeys(("conditions", "medications", "allergies", "family_history"), _list)
            ),
            "current_diagnosis": st.fixed_dictionaries({"condition": _text, "symptoms": _list, "duration": _text}),
            "prescription": st.lists(_item, max_size=3, unique_by=lambda item: item["drug"].lower()),
        }
    )
