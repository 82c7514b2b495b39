"""A conversation taken apart into clauses, each with who says it, about whom, and what had been asked.

Real transcripts are untidy: several speakers on one line, guests who speak for the patient, answers without a verb.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from medkd.samples import Turn, turns
from medkd.simulator.lexicon import Mention, mentions

Subject = Literal["patient", "relative", "outsider"]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """A sentence, or the part of one before or after a `but`."""

    speaker: Literal["doctor", "patient", "guest"]
    """A guest speaks for the patient, who is then she or he."""
    turn: int
    text: str
    is_question: bool
    about: frozenset[str]
    """What the doctor had asked about when this is an answer: names of `_TOPICS`; empty for the doctor's own clauses."""
    question: str
    """The doctor's last sentence before this answer."""
    mentions: tuple[Mention, ...]
    subjects: tuple[tuple[int, Subject], ...]
    """(position, who) from where on the clause is about whom; begins at 0."""

    def subject_at(self, position: int) -> Subject:
        return [who for start, who in self.subjects if start <= position][-1]

    def is_negated(self, position: int) -> bool:
        """Whether a negation stands before the position in this clause. An answering `No,` negates nothing by itself."""
        return any(match.start() < position for match in _NEGATION.finditer(self.text, _answer_word_end(self.text)))


_INLINE_SPEAKER = re.compile(r"(?<=\S)[ \t]+(?=(?:Doctor|Patient|Guest_\w+) ?:)")
_SENTENCE_END = re.compile(r"(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bDr\.)(?<=[.?!—;])\s+")
_CLAUSE_BREAK = re.compile(r",?\s+(?:but|although|though|however)\s+", re.IGNORECASE)
_DOCTORS = re.compile(r"doctor|dr\b|nurse|clinician|guest_clinician|physician", re.IGNORECASE)

# What a doctor's sentence asks about. The first line that matches wins, except for name and age, which may come together.
_TOPICS = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("allergies", r"\ballerg"),
        ("family", r"\bfamily\b|\brelatives?\b|\bparents\b|\bsiblings\b|\brun in\b"),
        ("substances", r"\bsmok|\bdrink|\balcohol|\bcigarette|\btobacco|\bdrugs\b|\bsubstance"),
        ("surgery", r"\bsurger|\boperat|\bprocedure"),
        (
            "medications",
            r"\bmedications?\b|\bmedicines?\b|\bmeds\b|\bpills\b|what (?:are|do) you tak|tak(?:e|ing) (?:anything|any)\b",
        ),
        ("duration", r"\bhow long\b|\bwhen did\b|\bsince when\b|\bwhen was\b"),
        (
            "conditions",
            r"\bmedical (?:histor|condition|problem|issue)|\bconditions?\b|\billness|\bdiagnosed\b|\bchronic\b|\bdiseases?\b",
        ),
        ("occupation", r"\boccupation\b|\bjob\b|\bfor (?:work|a living)\b|\bprofession\b|\bwork do you\b|\bdo you work\b"),
        (
            "complaint",
            r"\bbrings? you\b|\bproblem\b|\btroubling\b|\bhelp you\b|\bdo for you\b|\bsymptoms?\b|\bgoing on\b|\breason for\b",
        ),
    )
)
_IDENTITY = (("name", re.compile(r"\byour name\b|\bname and age\b", re.I)), ("age", re.compile(r"\bhow old\b|\bage\b", re.I)))

_RELATIVE = (
    r"mother|mom|mommy|mum|father|dad|sisters?|brothers?|siblings?|parents?|grand(?:mother|father|ma|pa|parents?)|aunts?|uncles?|cousins?"
    r"|sons?|daughters?|family|niece|nephew"
)
_OUTSIDER = (
    r"neighbou?rs?|co-?workers?|colleagues?|(?:best )?friends?|boss|roommates?|wife|husband|partner|girlfriend|boyfriend|fiancee?"
)
_SUBJECT = re.compile(
    rf"\b(?:(?P<relative>{_RELATIVE})|(?P<outsider>my (?:{_OUTSIDER}))|(?P<patient>I(?:'(?:m|ve|d|ll))?|me|you)"
    r"|(?P<third>he|she|they|his|her))\b",
    re.IGNORECASE,
)
_ANSWER_WORD = re.compile(r"\s*(?:no|nope|nah|yes|yeah|yep|um|uh|well|oh|okay)\b,\s*", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:no|not|none|never|neither|nor|without|denies|deny|denied|cannot|\w+n't)\b(?! (?:only|sure|too))", re.IGNORECASE
)
# An answer may be led up to: `To be exact, no.`, `Well, uh, let me think, none.` Only commas separate the lead's parts, so
# that there is one way to match it: a long text cannot make the pattern try many.
_LEAD = r"^\W*(?:[\w' ]{1,24},)*\s*(?:(?:um|uh|well|oh|hmm|i|i'm|doctor)\s+)*"
_DENIAL = re.compile(
    _LEAD + r"(?:no|none|nope|nah|nothing|not|never|neither|negative|don't|do not|haven't|take no|have no)\b", re.IGNORECASE
)
_CONSENT = re.compile(_LEAD + r"(?:yes|yeah|yep|yup|correct|right|that's right|do|have|sure)\b", re.IGNORECASE)


def clauses_of(conversation: str) -> list[Clause]:
    """All clauses of a conversation in order."""
    found: list[Clause] = []
    question = ""
    tidy = _INLINE_SPEAKER.sub("\n", conversation.replace("’", "'"))
    for index, turn in enumerate(turns(tidy)):
        speaker = _speaker(turn)
        clauses = list(_clauses(turn.text, speaker, index, question))
        found += clauses
        if speaker == "doctor":
            question = _question_of(turn.text)
    return found


def denies(clause: Clause) -> bool:
    """Whether the clause answers no: `No, none.`, `Not that I know of.`, `I take no medicines.`"""
    return _DENIAL.match(clause.text) is not None


def consents(clause: Clause) -> bool:
    """Whether the clause answers yes."""
    return _CONSENT.match(clause.text) is not None


def _speaker(turn: Turn) -> Literal["doctor", "patient", "guest"]:
    if _DOCTORS.match(turn.speaker):
        return "doctor"
    return "guest" if turn.speaker.lower().startswith("guest") else "patient"


def _question_of(text: str) -> str:
    """The doctor's sentence that the next answer is for: the last question, or else the last sentence."""
    sentences = _SENTENCE_END.split(text)
    return next((sentence for sentence in reversed(sentences) if sentence.endswith("?")), sentences[-1])


def _clauses(text: str, speaker: Literal["doctor", "patient", "guest"], turn: int, question: str) -> Iterator[Clause]:
    about = frozenset() if speaker == "doctor" else _topics(question)
    default: Subject = "relative" if "family" in about else "patient"
    subject = default
    for sentence in _SENTENCE_END.split(text):
        for part in _CLAUSE_BREAK.split(sentence):
            subjects = _subjects(part, subject, default, third_is_patient=speaker != "patient")
            subject = subjects[-1][1]
            yield Clause(
                speaker=speaker,
                turn=turn,
                text=part,
                is_question=sentence.endswith("?"),
                about=about,
                question=question,
                mentions=mentions(part),
                subjects=subjects,
            )


@lru_cache(maxsize=4096)
def _topics(question: str) -> frozenset[str]:
    identity = frozenset(name for name, pattern in _IDENTITY if pattern.search(question))
    return identity or frozenset([name for name, pattern in _TOPICS if pattern.search(question)][:1])


def _subjects(text: str, before: Subject, default: Subject, *, third_is_patient: bool) -> tuple[tuple[int, Subject], ...]:
    """Who the clause is about from which position on: `default` until somebody is named.

    She and he go on about whom the clause before was about, unless a third person speaks of the patient.
    """
    found: list[tuple[int, Subject]] = []
    for match in _SUBJECT.finditer(text):
        kind = match.lastgroup
        if kind == "third":
            subject: Subject = "patient" if third_is_patient else before
        else:
            subject = "relative" if kind == "relative" else "outsider" if kind == "outsider" else "patient"
        found.append((match.start(), subject))
        before = subject
    return ((0, default), *found)


def _answer_word_end(text: str) -> int:
    match = _ANSWER_WORD.match(text)
    return match.end() if match else 0
