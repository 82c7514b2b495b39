"""Draws what is true in one encounter: who comes, with what history and complaint, and what the doctor decides.

`draw_facts` decides the truth alone; `dialogue` decides what of it is spoken, and how.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from medkd.simulator.ailments import Ailment, ailment_of
from medkd.simulator.formulary import DRUGS, Drug
from medkd.simulator.people import (
    ACUTE_DURATIONS,
    ALLERGIES,
    CHRONIC_DURATIONS,
    CONDITIONS,
    FAMILY_CONDITIONS,
    FIRST_NAMES,
    LAST_NAMES,
    OCCUPATIONS,
    OVER_THE_COUNTER,
    RELATIVES,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the request asks for. `exchanges` counts pairs of a doctor's and a patient's line."""

    topic: str
    mood: str
    exchanges: int
    age: int | None
    sex: str | None
    style: str


@dataclass(frozen=True, kw_only=True)
class Prescribed:
    """One medicine of this visit; None is a part that nobody says."""

    drug: str
    dose: str | None
    frequency: str | None
    duration: str | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The truth of one encounter. An empty tuple in the history is something the patient would deny when asked."""

    name: str
    age: int
    sex: str
    occupation: str
    conditions: tuple[str, ...]
    medications: tuple[str, ...]
    allergies: tuple[str, ...]
    family: tuple[tuple[str, str], ...]
    """(relative, condition) pairs."""
    symptoms: tuple[str, ...]
    absent_symptoms: tuple[str, ...]
    duration: str
    diagnosis: str | None
    prescription: tuple[Prescribed, ...]
    considered_drug: str | None
    """A medicine the doctor weighs up aloud and does not give."""


def draw_facts(case: Case, rng: random.Random) -> Facts:
    """The facts of one encounter, pure in the case and the generator's state."""
    ailment = ailment_of(case.topic)
    sex = ailment.sex or case.sex or rng.choice(("male", "female"))
    conditions, medications = _history(case.topic, ailment, rng)
    allergies = tuple(rng.sample(ALLERGIES, 2 if rng.random() < 0.2 else 1)) if rng.random() < 0.55 else ()
    medications = tuple(drug for drug in medications if not set(DRUGS[drug].allergens) & set(allergies))
    suitable = [drug for drug in ailment.drugs if not set(DRUGS[drug].allergens) & set(allergies) and drug not in medications]
    chosen = rng.sample(suitable, min(len(suitable), _num_prescribed(rng)))
    left = [drug for drug in ailment.drugs if drug not in chosen and drug not in medications]
    symptoms = rng.sample(ailment.symptoms, min(len(ailment.symptoms), rng.choice((1, 2, 2, 3))))
    absent = [
        symptom for symptom in ("fever", "vomiting", "rash", "chest pain", "weight loss") if symptom not in ailment.symptoms
    ]
    return Facts(
        name=f"{rng.choice(FIRST_NAMES[sex])} {rng.choice(LAST_NAMES)}",
        age=_age(case.age, ailment, rng),
        sex=sex,
        occupation=rng.choice(OCCUPATIONS),
        conditions=conditions,
        medications=medications,
        allergies=allergies,
        family=_family(rng),
        symptoms=tuple(symptoms),
        absent_symptoms=tuple(rng.sample(absent, 2)),
        duration=rng.choice(ACUTE_DURATIONS if ailment.course == "acute" else CHRONIC_DURATIONS),
        diagnosis=ailment.diagnosis if rng.random() < 0.93 else None,
        prescription=tuple(_prescribed(DRUGS[drug], rng) for drug in chosen),
        considered_drug=rng.choice(left) if left and chosen and rng.random() < 0.2 else None,
    )


def _num_prescribed(rng: random.Random) -> int:
    return rng.choices((0, 1, 2), weights=(6, 80, 14))[0]


def _age(asked: int | None, ailment: Ailment, rng: random.Random) -> int:
    """The asked age, brought into what the ailment allows: a persona is drawn without looking at the topic."""
    youngest, oldest = ailment.ages
    age = rng.randint(19, 84) if asked is None else asked
    return age if youngest <= age <= oldest else youngest + age % (oldest - youngest + 1)


def _history(topic: str, ailment: Ailment, rng: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(conditions, medications) from before this visit; never the ailment itself, whose naming is the doctor's."""
    pool = [condition for condition in CONDITIONS if condition not in (topic, ailment.diagnosis)]
    conditions = rng.sample(pool, rng.choices((0, 1, 2), weights=(25, 55, 20))[0])
    medications = [rng.choice(CONDITIONS[condition]) for condition in conditions if CONDITIONS[condition] and rng.random() < 0.75]
    if rng.random() < 0.25:
        medications.append(rng.choice(OVER_THE_COUNTER))
    return tuple(conditions), tuple(dict.fromkeys(medications))


def _family(rng: random.Random) -> tuple[tuple[str, str], ...]:
    count = rng.choices((0, 1, 2), weights=(30, 55, 15))[0]
    return tuple(zip(rng.sample(RELATIVES, count), rng.sample(FAMILY_CONDITIONS, count), strict=True))


def _prescribed(drug: Drug, rng: random.Random) -> Prescribed:
    return Prescribed(
        drug=drug.name,
        dose=rng.choice(drug.doses) if rng.random() < 0.92 else None,
        frequency=rng.choice(drug.frequencies) if rng.random() < 0.95 else None,
        duration=rng.choice(drug.courses) if rng.random() < 0.85 else None,
    )
