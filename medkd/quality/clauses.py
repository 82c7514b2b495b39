"""Who a piece of talk is about, and whether it is denied: each turn cut into clauses, each word of it marked.

    "No history of diabetes, but I do have asthma."        diabetes is denied, asthma is not
    "Any chest pain?" - "No."                              what a question asks is denied by the answer
    "My mother had a stroke." "It runs in the family."     is the family's, not the patient's

Rules over surface words in the manner of NegEx (Chapman et al. 2001): they misjudge irony, hedges and long detours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from medkd.quality.spoken import tokens
from medkd.samples import Turn

_END = re.compile(
    r"(?<=[^\W\d])[.;!?]+(?=\s|$)|\n|\s(?:but|however|although|though|except)\s|,?\s(?:and|so|while|that)\s(?=(?:I|I've|I'm|I'd)\b)"
)
_QUESTION = re.compile(r"\?\s*$")

_VERBS = (
    r"have|had|having|got|any|a history|suffer\w*|take|taking|taken|use|using|diagnosed|allergic|experienc\w+|notic\w+|feel|felt"
    r"|know of any"
)
# What is said after one of these, as far as the clause goes, is denied; "no change in my asthma" denies no asthma.
_DENIAL = re.compile(
    r"\b(?:no|without|denie[sd]|deny(?:ing)?|negative for|free (?:of|from)|neither|nor|rule out|absence of"
    r"|never (?:had|have|been|took|taken|take|smoked|diagnosed)|not (?:been|on|got|" + _VERBS + r")"
    r"|(?:do|does|did|have|has|had|am|is|was|are|were)(?:n't| not) (?:really |actually |currently |ever |even |been )?"
    r"(?:" + _VERBS + r"))\b"
    r"(?! (?:change|longer|better|improvement|relief|worse|doubt|more|idea|wonder|help|problem|my|the|it|that|this|one)\b)",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:,|:|-)?\s*\b(?:none|denied|negative|(?:is|was|were|are|been) (?:ruled out|negative|absent))\s*$", re.IGNORECASE
)
_ENDS_OF_DENIALS = ("none", "denied", "negative", "ruled out", "absent")
_RESUMED = re.compile(r"\b(?:just|only|besides|apart from|other than|aside from|yes|unless|until|since|because)\b", re.IGNORECASE)
_HESITATION = r"^\W*(?:(?:well|um+|uh+|uhm|oh|hm+|ah|actually|sorry|honestly)\W+)*"
# "No, I have asthma.": the first word answers the question before and denies nothing of what follows.
_PARTICLE = re.compile(_HESITATION + r"(?:no|nope|nah)\s*(?:[,.;!-]|$|(?=sir|ma'am|doctor))", re.IGNORECASE)
_DENYING_ANSWER = re.compile(
    _HESITATION + r"(?:no|nope|nah|none|never|negative|not|nothing|neither|i'm not"
    r"|i (?:don't|do not|haven't|have not|never|didn't|am not))\b",
    re.IGNORECASE,
)
_NO_DENIAL = re.compile(
    r"^\W*(?:not (?:sure|until|too|so|very|only|well|good|great|bad)|no (?:problem|doubt|worries)|never mind)", re.IGNORECASE
)

_KIN = r"mother|mom|mum|father|dad|sisters?|brothers?|siblings?|parents?|aunts?|uncles?|cousins?|grand\w+|relatives?"
_OWN_KIN = r"|sons?|daughters?|wife|husband|kids?|children"
_STRANGERS = r"friend|neighbou?r|roommate|boss|co-?worker|colleague|classmate"
_HAS = (
    r"had|has|have|both|died|was|were|is|are|suffer\w*|passed|got|gets|takes?|took|did|does|with|battled|dealt|struggled"
    r"|developed"
)
_SAID_OF_FAMILY = (
    r"\b(?:in|on|of) (?:my|our|the|your|his|her|both sides of (?:my|the)) family|family (?:history|is|has|had|member)|runs? in"
    r"|(?:mother|father|mom|dad|maternal|paternal)(?:'s)? side|hereditary"
)
# Part of each word that the patterns about others look for. Few turns hold one, and finding none is far cheaper this way.
_OTHERS = tuple(
    "mother father mom mum dad sister brother sibling parent aunt uncle cousin grand relative son daughter wife husband kid "
    "child friend neighbo roommate boss worker colleague classmate famil run hereditary maternal paternal".split()
)
_ASKS_OF_FAMILY = re.compile(rf"\b(?:family|families|relatives?|parents|siblings|{_KIN})\b", re.IGNORECASE)
_STRANGER = re.compile(rf"\b(?:{_STRANGERS})\b(?:\W+\w+){{0,2}}?\W+(?:{_HAS})\b", re.IGNORECASE)
_SHE_OR_HE = re.compile(r"^\W*(?:and |then |yes,? |yeah,? |so )?(?:she|he|they|it)(?:'s|'d)? ", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\b(?:I|I'm|I've|I'd|me|myself|mine)\b")


@dataclass(frozen=True)
class Marked:
    """The words of one turn in normal form, by what they say. A text keeps its clauses apart with a bar.

    patient: affirmed and not said of the family. family: affirmed of relatives. What is denied of anybody is in neither.
    """

    patient: tuple[str, ...]
    family: tuple[str, ...]


def mark(talk: Sequence[Turn], speaks_for_patient: bool) -> list[Marked]:
    """The marked words of each turn. speaks_for_patient: a relative tells the story, so that "my son" is the patient."""
    subject, answer_only = _family_patterns(speaks_for_patient)
    marked = []
    asked_of_family = False
    for index, turn in enumerate(talk):
        following = talk[index + 1].text if index + 1 < len(talk) else ""
        refused = bool(_DENYING_ANSWER.match(following)) and not _NO_DENIAL.match(following)
        clauses = _clauses(turn.text)
        asked = [_QUESTION.search(clause) is not None for clause in clauses]
        last_statement = max((place for place, question in enumerate(asked) if not question), default=-1)
        lowered = turn.text.lower()
        others = any(word in lowered for word in _OTHERS)
        words: dict[str, list[str]] = {"patient": [], "family": []}
        family = False
        for place, clause in enumerate(clauses):
            answers = asked_of_family and bool(answer_only.search(clause) or not _FIRST_PERSON.search(clause))
            asks = others and asked[place] and bool(_ASKS_OF_FAMILY.search(clause))
            about = answers or asks or (others and bool(subject.search(clause)))
            family = about or (family and bool(_SHE_OR_HE.match(clause)))
            live = "" if asked[place] and refused and place > last_statement else _affirmed_part(clause)
            if not (others and _STRANGER.search(clause)):
                words["family" if family else "patient"] += [*tokens(live), "|"]
        marked.append(Marked(*(tuple(words[kind]) for kind in ("patient", "family"))))
        if turn.text.strip():
            by_doctor = turn.speaker.lower().startswith("doctor")
            about_family = others and any(_ASKS_OF_FAMILY.search(clause) for clause in clauses[-2:])
            asked_of_family = by_doctor and asked[-1] and about_family
    return marked


@lru_cache(maxsize=2)
def _family_patterns(speaks_for_patient: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What a clause about the family says, and what the mere answer to a question about it does."""
    kin = _KIN if speaks_for_patient else _KIN + _OWN_KIN
    subject = rf"\b(?:{kin})\b(?:'s)?(?:\W+\w+){{0,3}}?\W+(?:{_HAS})\b|{_SAID_OF_FAMILY}|\b(?:my|his|her) (?:{kin}),"
    return re.compile(subject, re.IGNORECASE), re.compile(rf"\b(?:my|his|her) (?:\w+ )?(?:{kin})\b", re.IGNORECASE)


def _clauses(text: str) -> list[str]:
    """The clauses of a turn, each with the sign that ends it."""
    found, start = [], 0
    for match in _END.finditer(text):
        found.append(text[start : match.end()])
        start = match.end()
    found.append(text[start:])
    return [clause for clause in found if clause.strip()]


def _affirmed_part(clause: str) -> str:
    """What the clause affirms: all but what it denies."""
    particle = _PARTICLE.match(clause)
    start = particle.end() if particle else 0
    match = _DENIAL.search(clause, start)
    said = clause[start:].rstrip(" .;!?")
    if not match and said.rstrip().lower().endswith(_ENDS_OF_DENIALS) and _DENIED_BEFORE.search(said):
        return ""
    if not match:
        return clause
    resumed = _RESUMED.search(clause, match.end())
    rest = _affirmed_part(clause[resumed.start() :]) if resumed else ""
    return f"{clause[: match.start()]} | {rest}"
