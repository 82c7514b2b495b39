"""What may stand in each field of a record and how a conversation supports it: one table per record schema.

Leaves without a rule of their own take `ANY_TEXT`, so a schema works before its table is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from medkd.quality.spoken import NUMBER_WORDS
from medkd.records import PATIENT_RECORD, RecordSchema

NONE = "none"
"""The only entry of a list that the conversation denies explicitly."""


Whose = Literal["anyone", "patient", "family"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The domain of one leaf, and how `quality.grounding` looks for its value.

    support: `literal`, the whole value within one turn; `name`, each of its words somewhere; `age`, a number that counts
    nothing else; `sex`, a cue about the patient; `drug`, one of its names; `words`, most of its content words within one or two
    turns, numbers always.
    """

    support: Literal["literal", "name", "age", "sex", "words", "drug"] = "words"
    allowed: tuple[str, ...] = ()
    """The values there are, taken in any case; empty: any text."""
    pattern: re.Pattern[str] | None = None
    """What a value must contain; None: anything."""
    expected: str = "some text"
    """The domain in words, for whoever repairs a value."""
    whose: Whose = "anyone"
    """Whom the words that support a value must be about, affirming it; `anyone`: neither is judged."""
    tied_to: str = ""
    """A member of the same item (a drug) which the value must be said of."""
    denied_about: tuple[str, ...] = ()
    """Beginnings of words one of which must be near a denial to support ["none"]; empty: any denial does."""


ANY_TEXT = Rule()

_NUMBER_WORD = "|".join(sorted(NUMBER_WORDS))

_PATIENT_RECORD_RULES = {
    "patient_details.name": Rule(support="name"),
    "patient_details.age": Rule(
        support="age", pattern=re.compile(r"^(?:\d|[1-9]\d|1[01]\d|120)$", re.ASCII), expected="digits from 0 to 120"
    ),
    "patient_details.sex": Rule(support="sex", allowed=("male", "female"), expected="male or female"),
    "medical_history.conditions": Rule(
        whose="patient",
        denied_about=(
            "condition",
            "problem",
            "histor",
            "illness",
            "disease",
            "diagnos",
            "health",
            "medical",
            "chronic",
            "suffer",
        ),
    ),
    "medical_history.medications": Rule(
        support="drug",
        whose="patient",
        denied_about=("medic", "med", "tak", "pill", "drug", "prescri", "tablet", "counter", "supplement", "remed"),
    ),
    "medical_history.allergies": Rule(whose="patient", denied_about=("allerg", "react", "intoleran", "sensitiv")),
    "medical_history.family_history": Rule(
        whose="family",
        denied_about=("famil", "mother", "father", "parent", "relative", "sibling", "brother", "sister", "mom", "dad", "run"),
    ),
    "current_diagnosis.condition": Rule(whose="patient"),
    "current_diagnosis.symptoms": Rule(whose="patient"),
    "prescription[].drug": Rule(support="drug"),
    "prescription[].dose": Rule(
        support="literal",
        tied_to="drug",
        pattern=re.compile(rf"\d|\b(?:{_NUMBER_WORD}|an?)\b", re.IGNORECASE),
        expected="an amount with its number, for example 20 mg",
    ),
}

_RULES: dict[str, Mapping[str, Rule]] = {PATIENT_RECORD.name: _PATIENT_RECORD_RULES}


def rules_of(schema: RecordSchema) -> Mapping[str, Rule]:
    """The schema's rules by leaf path (`prescription[].dose`), complete."""
    known = _RULES.get(schema.name, {})
    return {path: known.get(path, ANY_TEXT) for path in schema.leaves()}
