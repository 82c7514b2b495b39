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
_ASKS_OF_FAMILY = re.compile(rf"\b(?:family|families|relatives?|parents|siblings|{_KIN})\b", re.IGNORECASE)
_SHE_OR_HE = re.compile(r"^\W*(?:and |then |yes,? |yeah,? |so )?(?:she|he|they|it)(?:'s|'d)? ", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\b(?:I|I'm|I've|I'd|me|myself|mine)\b")


@dataclass(frozen=True)
class Marked:
    """The words of one turn in normal form, by what they say. A text keeps its clauses apart with a bar.

    patient: affirmed and not said of the family. family: affirmed of relatives. denied: what is denied of anybody.
    """

    patient: tuple[str, ...]
    family: tuple[str, ...]
    denied: tuple[str, ...]


def mark(talk: Sequence[Turn], speaks_for_patient: bool) -> list[Marked]:
    """The marked words of each turn. speaks_for_patient: a relative tells the story, so that "my son" is the patient."""
    kin = _KIN if speaks_for_patient else _KIN + _OWN_KIN
    subject = re.compile(
        rf"\b(?:{kin})\b(?:'s)?(?:\W+\w+){{0,3}}?\W+(?:{_HAS})\b|{_SAID_OF_FAMILY}|\b(?:my|his|her) (?:{kin}),", re.IGNORECASE
    )
    stranger = re.compile(rf"\b(?:{_STRANGERS})\b(?:\W+\w+){{0,2}}?\W+(?:{_HAS})\b", re.IGNORECASE)
    answer_only = re.compile(rf"\b(?:my|his|her) (?:\w+ )?(?:{kin})\b", re.IGNORECASE)
    marked = []
    asked_of_family = False
    for index, turn in enumerate(talk):
        following = talk[index + 1].text if index + 1 < len(talk) else ""
        refused = bool(_DENYING_ANSWER.match(following)) and not _NO_DENIAL.match(following)
        clauses = _clauses(turn.text)
        asked = [_QUESTION.search(clause) is not None for clause in clauses]
        last_statement = max((place for place, question in enumerate(asked) if not question), default=-1)
        words: dict[str, list[str]] = {"patient": [], "family": [], "denied": []}
        family = False
        for place, clause in enumerate(clauses):
            answers = asked_of_family and bool(answer_only.search(clause) or not _FIRST_PERSON.search(clause))
            asks = asked[place] and bool(_ASKS_OF_FAMILY.search(clause))
            about = answers or asks or bool(subject.search(clause))
            family = about or (family and bool(_SHE_OR_HE.match(clause)))
            if asked[place] and refused and place > last_statement:
                live, denied = "", clause
            else:
                live, denied = _denied_part(clause)
            if not stranger.search(clause):
                words["family" if family else "patient"] += [*tokens(live), "|"]
            words["denied"] += [*tokens(denied), "|"]
        marked.append(Marked(*(tuple(words[kind]) for kind in ("patient", "family", "denied"))))
        if turn.text.strip():
            by_doctor = turn.speaker.lower().startswith("doctor")
            asked_of_family = by_doctor and asked[-1] and any(_ASKS_OF_FAMILY.search(clause) for clause in clauses[-2:])
    return marked


def _clauses(text: str) -> list[str]:
    """The clauses of a turn, each with the sign that ends it."""
    found, start = [], 0
    for match in _END.finditer(text):
        found.append(text[start : match.end()])
        start = match.end()
    found.append(text[start:])
    return [clause for clause in found if clause.strip()]


def _denied_part(clause: str) -> tuple[str, str]:
    """What the clause affirms, and what it denies."""
    particle = _PARTICLE.match(clause)
    start = particle.end() if particle else 0
    if _DENIED_BEFORE.search(clause[start:].rstrip(" .;!?")) and not _DENIAL.search(clause, start):
        return "", clause
    match = _DENIAL.search(clause, start)
    if not match:
        return clause, ""
    resumed = _RESUMED.search(clause, match.end())
    end = resumed.start() if resumed else len(clause)
    rest_live, rest_denied = _denied_part(clause[end:]) if resumed else ("", "")
    return f"{clause[: match.start()]} | {rest_live}", f"{clause[match.end() : end]} | {rest_denied}"
