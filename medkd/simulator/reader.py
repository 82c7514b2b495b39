"""Reads a conversation and writes the record of what is said in it, as a careful reader with a lexicon would.

Every value is a piece of the conversation, except age (always digits) and sex. The reader knows nothing of what the clinic
meant; it understands negation, corrections, relatives and outsiders, and answers to the doctor's questions.
"""

from __future__ import annotations

from medkd.records import NOT_PROVIDED, PATIENT_RECORD, Record
from medkd.simulator import cues
from medkd.simulator.lexicon import Mention, mentions
from medkd.simulator.number_words import value_of
from medkd.simulator.people import OCCUPATIONS
from medkd.simulator.utterances import Clause, clauses_of, consents, denies


def read_record(conversation: str) -> Record:
    """The record of a conversation of any form; what it does not say stays empty."""
    clauses = clauses_of(conversation)
    prescription, prescribed_from = _prescription(clauses)
    record = PATIENT_RECORD.empty()
    record["patient_details"] = {
        "name": _name(clauses),
        "age": _age(clauses),
        "sex": _sex(clauses),
        "occupation": _occupation(clauses),
    }
    record["medical_history"] = {
        "conditions": _conditions(clauses),
        "medications": _medications(clauses, prescribed_from),
        "allergies": _allergies(clauses),
        "family_history": _family(clauses),
    }
    record["current_diagnosis"] = {
        "condition": _diagnosis(clauses),
        "symptoms": _symptoms(clauses),
        "duration": _duration(clauses),
    }
    record["prescription"] = prescription
    return record


# Who the patient is


def _name(clauses: list[Clause]) -> str:
    for clause in clauses:
        patterns = [cues.TITLED_NAME, cues.GREETED_NAME] if clause.speaker == "doctor" else []
        patterns += [cues.TOLD_NAME, cues.BARE_NAME] if "name" in clause.about else []
        found = next((match for pattern in patterns if (match := pattern.search(clause.text))), None)
        if found is None and clause.speaker == "patient":
            found = cues.PLAIN_NAME.search(clause.text)
        if found:
            return found[1].strip()
    return NOT_PROVIDED


def _age(clauses: list[Clause]) -> str:
    for clause in clauses:
        for match in cues.AGE.finditer(clause.text):
            if clause.subject_at(match.start()) == "patient" and not _of_a_child(clause.text, match.end()):
                return _digits(match["old"] or match["said"])
        if "age" in clause.about and (bare := cues.BARE_AGE.search(clause.text)):
            return _digits(bare["age"])
    return NOT_PROVIDED


def _of_a_child(text: str, end: int) -> bool:
    return cues.CHILD_FOLLOWS.match(text, end) is not None


def _digits(number: str) -> str:
    value = value_of(number)
    return NOT_PROVIDED if value is None or value > 120 else str(value)


def _sex(clauses: list[Clause]) -> str:
    """From how the patient is addressed or described. The patient's own `sir` is for the doctor, so it does not count."""
    for clause in clauses:
        text = cues.ADDRESS.sub("", clause.text) if clause.speaker == "patient" else clause.text
        for sex, cue in (("female", cues.FEMALE), ("male", cues.MALE)):
            match = cue.search(text)
            if match and clause.subject_at(match.start()) == "patient":
                return sex
    guests = " ".join(clause.text for clause in clauses if clause.speaker == "guest")
    num_she, num_he = len(cues.SHE.findall(guests)), len(cues.HE.findall(guests))
    if num_she == num_he:
        return NOT_PROVIDED
    return "female" if num_she > num_he else "male"


def _occupation(clauses: list[Clause]) -> str:
    for clause in clauses:
        if clause.speaker == "doctor":
            continue
        asked = "occupation" in clause.about
        match = cues.WORKS_AS.search(clause.text) or (cues.IS_A.search(clause.text) if asked else None)
        if match and clause.subject_at(match.start()) == "patient":
            return cues.WORK_END.sub("", match["work"]).strip()
        known = None if asked else cues.IS_A.search(clause.text)
        if known and (work := _known_work(known["work"])):
            return work
    return NOT_PROVIDED


def _known_work(text: str) -> str:
    work = cues.WORK_END.sub("", text).strip()
    return work if work.lower() in OCCUPATIONS else ""


# What was there before


def _conditions(clauses: list[Clause]) -> list[str]:
    found = [
        _text(clause, mention)
        for clause in clauses
        if clause.speaker != "doctor"
        for mention in clause.mentions
        if _is_own(clause, mention, "condition") and ("symptom" not in mention.kinds or "conditions" in clause.about)
    ]
    found += _confirmed(clauses, "condition")
    return _distinct(found) or _denied(clauses, "conditions", "condition")


def _medications(clauses: list[Clause], prescribed_from: int) -> list[str]:
    """Medicines the patient speaks of before the doctor prescribes; those in talk about allergies only if also taken."""
    found = [
        _text(clause, mention)
        for clause in clauses
        if clause.speaker != "doctor" and clause.turn < prescribed_from and not cues.ALLERGIC.search(clause.text)
        if "allergies" not in clause.about or cues.TAKES.search(clause.text)
        for mention in clause.mentions
        if _is_own(clause, mention, "drug")
    ]
    found += _confirmed(clauses, "drug")
    return _distinct(found) or _denied(clauses, "medications", "drug")


def _allergies(clauses: list[Clause]) -> list[str]:
    found: list[str] = []
    for clause in clauses:
        if clause.speaker == "doctor" or clause.is_question:
            continue
        told = cues.ALLERGIC.search(clause.text)
        if not told and ("allergies" not in clause.about or cues.TAKES.search(clause.text)):
            continue
        start = told.start() if told else 0
        known = [
            _text(clause, mention)
            for mention in clause.mentions
            if mention.start >= start and mention.kinds & {"allergen", "drug"} and _is_own(clause, mention)
        ]
        other = None if known else cues.ALLERGEN.search(clause.text)
        found += known or ([other["what"]] if other and not clause.is_negated(other.start()) else [])
    if not found and any(cues.NO_ALLERGIES.search(clause.text) for clause in clauses if clause.speaker != "doctor"):
        return ["none"]
    return _distinct(found) or _denied(clauses, "allergies", "allergen")


def _family(clauses: list[Clause]) -> list[str]:
    found = [
        _text(clause, mention)
        for clause in clauses
        if clause.speaker != "doctor"
        for mention in clause.mentions
        if "condition" in mention.kinds
        and clause.subject_at(mention.start) == "relative"
        and not clause.is_negated(mention.start)
    ]
    return _distinct(found) or _denied(clauses, "family", "condition")


def _denied(clauses: list[Clause], topic: str, kind: str) -> list[str]:
    """["none"] if a general question about the topic was answered no; a denied single illness or drug says nothing of others."""
    for clause in clauses:
        if topic in clause.about and denies(clause) and not _asked_mentions(clause, kind):
            return ["none"]
    return []


# What this visit is about


def _diagnosis(clauses: list[Clause]) -> str:
    for clause in clauses:
        if clause.speaker != "doctor" or clause.is_question:
            continue
        match = cues.NAMED.search(clause.text) or cues.YOU_HAVE.search(clause.text)
        if not match or clause.is_negated(match.start("what")):
            continue
        start = match.start("what")
        what = cues.NAME_END.sub("", match["what"]).strip()
        known = next((mention for mention in clause.mentions if mention.start >= start and "condition" in mention.kinds), None)
        if known and known.start <= start + len(what):
            return _longer(_text(clause, known), what)
        if what and len(what.split()) <= 6 and not cues.NO_NAME.match(what):
            return what
    return NOT_PROVIDED


def _longer(known: str, what: str) -> str:
    """What the doctor said, if the lexicon knows only a part of a short name (`acute pancreatitis`)."""
    return what if known in what and len(what.split()) <= 4 else known


def _symptoms(clauses: list[Clause]) -> list[str]:
    found = [
        _text(clause, mention)
        for clause in clauses
        if clause.speaker != "doctor" and not clause.about & {"family", "allergies", "conditions", "medications"}
        for mention in clause.mentions
        if _is_own(clause, mention, "symptom")
    ]
    return _distinct(found + _confirmed(clauses, "symptom"))


def _duration(clauses: list[Clause]) -> str:
    """How long it has lasted: the answer to that question first, then what stands beside a symptom."""
    spoken = [clause for clause in clauses if clause.speaker != "doctor"]
    for clause in spoken:
        if "duration" in clause.about and (span := _span(clause.text, bare=True)):
            return span
    complaint_turns = {clause.turn for clause in spoken if "complaint" in clause.about or _has_own_symptom(clause)}
    for clause in spoken:
        if clause.turn in complaint_turns and clause.subject_at(0) == "patient" and (span := _span(clause.text, bare=False)):
            return span
    return NOT_PROVIDED


def _has_own_symptom(clause: Clause) -> bool:
    return any(_is_own(clause, mention, "symptom") for mention in clause.mentions)


def _span(text: str, *, bare: bool) -> str:
    corrected = cues.CORRECTED_SPAN.search(text)
    if corrected:
        return corrected["span"]
    lasting = cues.LASTING.search(text)
    if lasting:
        return lasting["span"] or lasting["ago"]
    since = cues.SINCE.search(text)
    if since and "years old" not in text:
        return since[0]
    span = cues.BARE_SPAN.search(text) if bare else None
    return span["span"] if span else ""


# What the doctor prescribes


def _prescription(clauses: list[Clause]) -> tuple[list[dict[str, str]], int]:
    """The prescribed medicines and the turn of the first, or a turn past the end."""
    items: list[dict[str, str]] = []
    first = len(clauses) + 1
    for clause in clauses:
        drugs = [mention for mention in clause.mentions if "drug" in mention.kinds]
        if clause.speaker != "doctor" or clause.is_question or not drugs or cues.WEIGHED.search(clause.text):
            continue
        if not cues.ORDERS.search(clause.text) or clause.is_negated(drugs[0].start):
            continue
        first = min(first, clause.turn)
        ends = [mention.start for mention in drugs[1:]] + [len(clause.text)]
        items += [_item(clause, drug, end) for drug, end in zip(drugs, ends, strict=True)]
    return [item for index, item in enumerate(items) if item not in items[:index]], first


def _item(clause: Clause, drug: Mention, end: int) -> dict[str, str]:
    rest = clause.text[drug.end : end]
    dose, frequency, course = cues.DOSE.search(rest), cues.FREQUENCY.search(rest), cues.COURSE.search(rest)
    return {
        "drug": _text(clause, drug),
        "dose": dose[0].strip() if dose else NOT_PROVIDED,
        "frequency": frequency[0] if frequency else NOT_PROVIDED,
        "duration": course["span"] if course else NOT_PROVIDED,
    }


# Mentions


def _text(clause: Clause, mention: Mention) -> str:
    return clause.text[mention.start : mention.end]


def _is_own(clause: Clause, mention: Mention, kind: str | None = None) -> bool:
    """Whether a mention is of this kind, stated of the patient, and not negated."""
    of_kind = kind is None or kind in mention.kinds
    stated = not clause.is_question and not clause.is_negated(mention.start)
    return of_kind and stated and clause.subject_at(mention.start) == "patient"


def _asked_mentions(clause: Clause, kind: str) -> list[str]:
    return [clause.question[found.start : found.end] for found in mentions(clause.question) if kind in found.kinds]


def _confirmed(clauses: list[Clause], kind: str) -> list[str]:
    """What the doctor asked about by name, one thing at a time, and the patient answered yes to."""
    found: list[str] = []
    for clause in clauses:
        if (
            clause.speaker != "doctor"
            and not clause.about & {"family", "allergies"}
            and consents(clause)
            and "?" in clause.question
        ):
            asked = _asked_mentions(clause, kind)
            found += asked if len(asked) == 1 else []
    return found


def _distinct(values: list[str]) -> list[str]:
    """Each value once, in order, whatever its case."""
    return list({value.lower(): value for value in reversed(values)}.values())[::-1]
