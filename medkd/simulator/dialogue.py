"""Speaks an encounter: turns facts into a conversation, and writes into the record exactly what was spoken.

A fact that finds no place stays unspoken and is missing from the record; what is denied becomes ["none"].
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record
from medkd.simulator import phrases
from medkd.simulator.encounters import Case, Facts, Prescribed
from medkd.simulator.number_words import spell
from medkd.simulator.people import FAMILY_CONDITIONS, OUTSIDERS

FEWEST_EXCHANGES = 2
MOST_EXCHANGES = 40

Exchange = tuple[str, str]
"""What the doctor says and what the patient answers."""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A conversation and the record of what is said in it."""

    conversation: str
    record: Record


def speak(case: Case, facts: Facts, rng: random.Random) -> Spoken:
    """The encounter as `Doctor:` / `Patient:` lines with as many exchanges as asked, between 2 and 40."""
    teller = _Teller(case, facts, rng)
    exchanges = teller.tell(min(max(case.exchanges, FEWEST_EXCHANGES), MOST_EXCHANGES))
    lines = [line for doctor, patient in exchanges for line in (f"Doctor: {doctor}", f"Patient: {patient}")]
    return Spoken(conversation="\n".join(lines), record=teller.record)


class _Teller:
    """Tells one encounter, exchange by exchange, and keeps the record of it."""

    def __init__(self, case: Case, facts: Facts, rng: random.Random) -> None:
        self.case = case
        self.facts = facts
        self.rng = rng
        self.record = PATIENT_RECORD.empty()

    def tell(self, num_exchanges: int) -> list[Exchange]:
        if num_exchanges == FEWEST_EXCHANGES:
            (hello, who), (question, complaint) = self.opening(), self.complaint(with_duration=True)
            return [(f"{hello} {question}", f"{who} {complaint}"), self.decision()]
        room = num_exchanges - 3
        asks_duration = room > 1 and self.rng.random() < 0.35
        splits_decision = room > 2 and self.rng.random() < 0.4
        told = [self.opening(), self.complaint(with_duration=not asks_duration)]
        told += [self.duration()] if asks_duration else []
        told += self.middle(room - asks_duration - splits_decision)
        told = self.with_mood(told)
        return [*told, self.naming(), self.ordering()] if splits_decision else [*told, self.decision()]

    def say(self, templates: tuple[str, ...], **gaps: str) -> str:
        return self.rng.choice(templates).format(**gaps)

    # Who the patient is

    def opening(self) -> Exchange:
        name_by, age_by = (self.rng.choice(("doctor", "doctor", "patient", "patient", "patient", "nobody")) for _ in range(2))
        name_by = "doctor" if name_by == "nobody" and self.rng.random() < 0.6 else name_by
        age_by = "patient" if age_by == "nobody" and self.rng.random() < 0.6 else age_by
        sex_by = self.rng.choice(
            ("address", "address", "noun", "nobody") if age_by == "patient" else ("address", "address", "nobody")
        )
        details = self.record["patient_details"]
        details.update(self._said(name=name_by, age=age_by, sex=sex_by))
        return self._greeting(name_by, age_by, sex_by), self._introduction(name_by, age_by, sex_by)

    def _said(self, **speaker: str) -> dict[str, str]:
        return {field: str(getattr(self.facts, field)) for field, said_by in speaker.items() if said_by != "nobody"}

    def _greeting(self, name_by: str, age_by: str, sex_by: str) -> str:
        male = self.facts.sex == "male"
        address = ""
        if name_by == "doctor":
            title = ("Mr. " if male else self.rng.choice(("Ms. ", "Mrs. "))) if sex_by == "address" else ""
            address = f", {title}{self.facts.name}"
        elif sex_by == "address":
            address = ", sir" if male else ", ma'am"
        asked = [word for word, by in (("name", name_by), ("age", age_by)) if by == "patient"]
        if age_by == "doctor":
            question = self.say(("I see you're {age} now.", "It says here you're {age} years old."), age=self._age())
            question += " And your name?" if asked else ""
        elif asked == ["age"]:
            question = self.say(("How old are you?", "Can you tell me your age?"))
        elif asked:
            question = self.say(("Can you tell me your {asked}?", "Your {asked}, please?"), asked=" and ".join(asked))
        else:
            question = "Please have a seat."
        return f"{self.rng.choice(phrases.GREETINGS)}{address}. {question}"

    def _introduction(self, name_by: str, age_by: str, sex_by: str) -> str:
        said = [self.say(phrases.NAME_GIVEN, name=self.facts.name)] if name_by == "patient" else []
        if age_by == "patient" and sex_by == "noun":
            man, woman = self.rng.choice((("man", "woman"), ("male", "female")))
            said.append(f"I'm a {self.facts.age}-year-old {man if self.facts.sex == 'male' else woman}.")
        elif age_by == "patient":
            said.append(self.say(phrases.AGE_GIVEN, age=self._age()))
        return " ".join(said) or self.say(("Hello, doctor.", "Thank you.", "Good to see you."))

    def _age(self) -> str:
        age, roll = self.facts.age, self.rng.random()
        if roll < 0.08:
            return spell(age)
        return f"{age - 2}, no, sorry, {age}" if roll < 0.11 else str(age)

    # Why the patient comes

    def complaint(self, *, with_duration: bool) -> Exchange:
        facts, current = self.facts, self.record["current_diagnosis"]
        current["symptoms"] = list(facts.symptoms)
        question = self.say(phrases.COMPLAINT_QUESTIONS)
        symptoms = _listing(facts.symptoms)
        if not with_duration or self.rng.random() < 0.06:
            return question, self.styled(self.say(phrases.COMPLAINTS, symptoms=symptoms))
        current["duration"] = facts.duration
        return question, self.styled(self.say(phrases.COMPLAINTS_WITH_DURATION, symptoms=symptoms, duration=facts.duration))

    def duration(self) -> Exchange:
        self.record["current_diagnosis"]["duration"] = self.facts.duration
        return self.say(phrases.DURATION_QUESTIONS), self.styled(self.say(phrases.DURATION_ANSWERS, duration=self.facts.duration))

    # What was there before, and what has nothing to do with it

    def middle(self, room: int) -> list[Exchange]:
        """`room` exchanges: parts of the history first, then fillers; parts without one are mentioned in passing, or never."""
        parts = list(phrases.HISTORY)
        self.rng.shuffle(parts)
        asked = [part for part in parts[:room] if self.rng.random() < 0.92]
        exchanges = [self.asked_about(part) for part in asked]
        exchanges += self.fillers(room - len(exchanges))
        self.rng.shuffle(exchanges)
        for part in (part for part in parts[room:] if exchanges and self.rng.random() < 0.3 and self.told_of(part)):
            index = self.rng.randrange(len(exchanges))
            doctor, patient = exchanges[index]
            exchanges[index] = doctor, f"{patient} {self.aside(part)}"
        return exchanges

    def asked_about(self, part: str) -> Exchange:
        talk, values = phrases.HISTORY[part], self.told_of(part)
        self._note(part, values or ["none"])
        if not values:
            return self.say(talk.questions), self.styled(self.say(talk.denials))
        brief = self.case.style in ("brief", "terse") and self.rng.random() < 0.7
        answers = talk.answers[:1] if brief else talk.answers
        return self.say(talk.questions), self.styled(self._with_facts(answers, part, values))

    def aside(self, part: str) -> str:
        values = self.told_of(part)
        self._note(part, values)
        return self._with_facts(phrases.HISTORY[part].asides, part, values)

    def told_of(self, part: str) -> list[str]:
        """The record's values of one part of the history, in the order they are spoken."""
        if part == "occupation":
            return [self.facts.occupation]
        if part == "family_history":
            return [condition for _, condition in self.facts.family]
        return list(getattr(self.facts, part))

    def _note(self, part: str, values: list[str]) -> None:
        if part == "occupation":
            self.record["patient_details"]["occupation"] = values[0]
        else:
            self.record["medical_history"][part] = values

    def _with_facts(self, templates: tuple[str, ...], part: str, values: list[str]) -> str:
        if part == "family_history":
            values = [self.say(phrases.RELATIVE_HAD, relative=who, condition=what) for who, what in self.facts.family]
        if part == "occupation":
            values = [_with_article(values[0])]
        told = _listing(tuple(values))
        return self.say(templates, facts=told, Facts=told[:1].upper() + told[1:])

    def fillers(self, count: int) -> list[Exchange]:
        small_talk = self.rng.sample(phrases.SMALL_TALK, len(phrases.SMALL_TALK))
        chosen = [small_talk[index % len(small_talk)] for index in range(count)]
        chosen = [(f"{doctor}—" if doctor.endswith("your") else doctor, patient) for doctor, patient in chosen]
        if count and self.rng.random() < 0.6:
            chosen[0] = self.absence()
        if count > 1 and self.rng.random() < 0.4:
            chosen[1] = self.outsider()
        return chosen

    def absence(self) -> Exchange:
        first, second = self.facts.absent_symptoms
        question = self.say(phrases.ABSENT_QUESTIONS, first=first, second=second)
        return question, self.say(phrases.ABSENT_ANSWERS, first=first, second=second)

    def outsider(self) -> Exchange:
        someone, condition = self.rng.choice(OUTSIDERS), self.rng.choice(FAMILY_CONDITIONS)
        return self.say(phrases.OUTSIDER_QUESTIONS), self.say(phrases.OUTSIDER_ANSWERS, outsider=someone, condition=condition)

    # What the doctor decides

    def decision(self) -> Exchange:
        diagnosis, _ = self.naming()
        orders, closing = self.ordering()
        return f"{diagnosis} {orders}", closing

    def naming(self) -> Exchange:
        if self.facts.diagnosis is None:
            return self.say(phrases.NO_DIAGNOSIS), self.say(phrases.REACTIONS)
        self.record["current_diagnosis"]["condition"] = self.facts.diagnosis
        return self.say(phrases.DIAGNOSES, diagnosis=self.facts.diagnosis), self.say(phrases.REACTIONS)

    def ordering(self) -> Exchange:
        prescription = self.facts.prescription
        self.record["prescription"] = [_item(prescribed) for prescribed in prescription]
        said = [self.say(phrases.CONSIDERED, drug=self.facts.considered_drug)] if self.facts.considered_drug else []
        for number, prescribed in enumerate(prescription):
            said.append(self.say(phrases.PRESCRIBING_MORE if number else phrases.PRESCRIBING, order=self._order(prescribed)))
        return " ".join(said) or self.say(phrases.NO_PRESCRIPTION), self.say(phrases.CLOSINGS)

    def _order(self, prescribed: Prescribed) -> str:
        commas = self.rng.random() < 0.3
        parts = [prescribed.drug, prescribed.dose, prescribed.frequency, prescribed.duration and f"for {prescribed.duration}"]
        return (", " if commas else " ").join(part for part in parts if part)

    # How the patient speaks

    def styled(self, answer: str) -> str:
        style = self.case.style
        if style in phrases.OPENERS and self.rng.random() < 0.4:
            opener = self.rng.choice(phrases.OPENERS[style])
            answer = opener + (answer if opener.endswith(". ") else _uncapitalised(answer))
        if style in phrases.TANGENTS and self.rng.random() < 0.3:
            answer = f"{answer} {self.rng.choice(phrases.TANGENTS[style])}"
        return answer

    def with_mood(self, exchanges: list[Exchange]) -> list[Exchange]:
        """The exchanges with the patient's mood showing in one of them, after the opening."""
        index = self.rng.randrange(1, len(exchanges))
        doctor, patient = exchanges[index]
        mood = self.say(phrases.MOODS.get(self.case.mood, phrases.ANY_MOOD), mood=self.case.mood)
        return [*exchanges[:index], (doctor, f"{patient} {mood}"), *exchanges[index + 1 :]]


def _item(prescribed: Prescribed) -> dict[str, Any]:
    parts = ("drug", "dose", "frequency", "duration")
    return {part: getattr(prescribed, part) or NOT_PROVIDED for part in parts}


def _listing(words: tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _uncapitalised(sentence: str) -> str:
    """The sentence as it goes on after an opener; `I` stays as it is."""
    first = sentence.split(maxsplit=1)[0]
    return sentence if first == "I" or first.startswith("I'") or first.isupper() else sentence[:1].lower() + sentence[1:]
