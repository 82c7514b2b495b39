"""The turns of phrase by which the reader recognises a fact: how people say names, ages, work, time, orders and doses."""

from __future__ import annotations

import re

from medkd.simulator.number_words import NUMBER_PATTERN as _NUMBER

_CORRECTION = r"(?:,? (?:no|sorry|wait|i mean|actually|make that)\b,?)+ "
_CORRECTED = _NUMBER + _CORRECTION
_SPAN = (
    rf"(?:(?:about|almost|nearly|over|around) )?(?:(?:{_NUMBER}(?: (?:or|to) {_NUMBER})?|an?|a few|several|a couple(?: of)?|many)"
    r" (?:hour|day|week|month|year|night)s?)"
)

TITLED_NAME = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Mister|Missus)\b\.? ((?:[A-Z][\w'-]*)(?: [A-Z][\w'-]*){0,2})")
_TWO_NAMES = r"([A-Z](?:'[A-Z])?[a-z-]+(?: [A-Z](?:'[A-Z])?[a-z-]+){1,2})\b"
TOLD_NAME = re.compile(rf"\b(?:[Mm]y name is|[Mm]y name's|[Nn]ame is|I'm|I am|[Ii]t's|[Tt]his is) {_TWO_NAMES}")
GREETED_NAME = re.compile(rf"^(?:Good (?:morning|afternoon|evening)|Hello|Hi|Hey|Welcome)(?: there)?,? {_TWO_NAMES}")
PLAIN_NAME = re.compile(r"\b[Mm]y name(?: is|'s) ((?:[A-Z][a-z'-]+ ?){1,3})\b")
BARE_NAME = re.compile(rf"^{_TWO_NAMES}")

AGE = re.compile(
    rf"\b(?:{_CORRECTED})?(?P<old>{_NUMBER})[- ]years?[- ](?:old|young)\b"
    rf"|\b(?:i'm|i am|you're|you are|she's|he's|she is|he is|age is|aged|turned)(?: now)? (?:{_CORRECTED})?(?P<said>{_NUMBER})"
    r"(?![-\w])(?!\s*(?:%|mg|weeks?|months?|days?|hours?|minutes?|percent|pounds?|years?\b(?! old| young)))",
    re.IGNORECASE,
)
BARE_AGE = re.compile(rf"\b(?:{_CORRECTED})?(?P<age>{_NUMBER})\b(?! (?:months?|weeks?|days?)\b)", re.IGNORECASE)

FEMALE = re.compile(
    r"\b(?:Mrs|Ms|Miss)\b\.? (?=[A-Z])|\b(?:ma'am|madam|young lady)\b|, miss\b|\b(?:\d+|old|a|an|am) (?:woman|female|lady|girl)\b"
    r"|-old (?:woman|female|lady|girl)\b|\bpregnan|\bhysterectom|\bmenopaus|\bmy periods?\b|\bpap smear",
    re.IGNORECASE,
)
MALE = re.compile(
    r"\b(?:Mr|Mister)\b\.? (?=[A-Z])|\bsir\b|\byoung man\b|\b(?:\d+|old|a|an|am) (?:man|male|gentleman|boy|guy)\b"
    r"|-old (?:man|male|gentleman|boy)\b|\bprostat",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"\b(?:sir|ma'am|madam|[Mm]iss)\b")
CHILD_FOLLOWS = re.compile(r"\s*(?:son|daughter|kid|child|brother|sister)\b")
SHE, HE = re.compile(r"\b(?:she|her|daughter)\b", re.IGNORECASE), re.compile(r"\b(?:he|him|his|son)\b", re.IGNORECASE)

WORKS_AS = re.compile(
    r"\b(?:work|works|worked|working|job|employed)(?:ed|ing)? (?:is |was )?as an? (?:retired )?(?P<work>[a-z][a-z ]*)",
    re.IGNORECASE,
)
IS_A = re.compile(
    r"\b(?:i'm|i am|i've been|i was|she's|he's|she is|he is) an? (?:retired )?(?P<work>[a-z][a-z ]*)", re.IGNORECASE
)
WORK_END = re.compile(r" (?:for|at|in|and|so|but|by|with|now|on|who|until)\b.*$", re.IGNORECASE)

ALLERGIC = re.compile(
    r"\ballerg(?:ic|y|ies) to\b|\breact(?:s|ed)? badly to\b|\bintoleran(?:t|ce)\b|\bcan't (?:have|tolerate)\b", re.IGNORECASE
)
ALLERGEN = re.compile(
    r"\ballerg(?:ic|y|ies) to (?:the )?(?P<what>(?!anything|any\b|it\b|that\b|some\b)[\w-]+(?: [\w-]+){0,2}?)"
    r"(?=[.,;?!]|$| and\b)",
    re.IGNORECASE,
)
TAKES = re.compile(r"\b(?:take|takes|taking|took|use|uses|using|on|prescribed|medications?|medicines?|home)\b", re.IGNORECASE)
NO_ALLERGIES = re.compile(
    r"\bno (?:known )?(?:drug |food )?allerg|\bnot allergic\b|\b(?:don't|do not) have (?:any )?(?:known )?allerg", re.IGNORECASE
)

SINCE = re.compile(
    r"\bsince (?:(?:last|this|my|the) \w+|yesterday|childhood|birth|\w+day\b|january|february|march|april|may|june|july|august"
    r"|september|october|november|december|\d{4})(?: (?:morning|night|evening))?",
    re.IGNORECASE,
)
LASTING = re.compile(
    rf"\b(?:for|past|last|been|started|began|since|say|over)\b[^.]{{0,20}}?\b(?P<span>{_SPAN})\b"
    rf"|\b(?P<ago>{_SPAN}) (?:ago|now)\b",
    re.IGNORECASE,
)
CORRECTED_SPAN = re.compile(rf"\b{_SPAN}{_CORRECTION}(?P<span>{_SPAN})\b", re.IGNORECASE)
BARE_SPAN = re.compile(rf"\b(?P<span>{_SPAN})\b", re.IGNORECASE)

NAMED = re.compile(
    r"\b(?:looks? like|diagnosis is|points? to|(?:think|believe|suspect|sure|afraid) (?:that )?(?:this|it|you)"
    r"(?:'s| is|'ve| have| may have)|consistent with|suggests?|suggestive of|dealing with|diagnosed (?:you|him|her) with"
    r"|seems? to be|suffering from|we call it)"
    r" (?:an? |the |some |probably |likely )*(?P<what>.+)",
    re.IGNORECASE,
)
YOU_HAVE = re.compile(
    r"^(?:\w+, |so,? |well,? )?(?:you|she|he) (?:probably |likely |do )?(?:have|has) (?:an? )?(?P<what>.+)", re.IGNORECASE
)
NO_NAME = re.compile(
    r"^(?:any|been|to|no|your|this|that|some|had|it|not|the|very|really|good|great|nothing|what)\b", re.IGNORECASE
)
NAME_END = re.compile(r"[.,;:?!—].*$| (?:and|so|which|that|because|with|in|on|of your|from)\b.*$", re.IGNORECASE)

WEIGHED = re.compile(
    r"\b(?:thought about|consider(?:ed|ing)?|could (?:try|use)|instead of|stop|stopped|discontinue|avoid|allerg\w+)\b",
    re.IGNORECASE,
)
ORDERS = re.compile(
    r"\b(?:take|taking|start|starting|prescrib\w+|add|adding|put (?:you|her|him) on|give (?:you|her|him)|giving|try|use|continue"
    r"|increase|refill|prescription|write you|send|switch)\b",
    re.IGNORECASE,
)
DOSE = re.compile(
    rf"\b(?:\d[\d,.]*|{_NUMBER}|half a) ?(?:(?:mg|mcg|g|ml|units?|IU|grams?|milligrams?|micrograms?|milliliters?"
    r"|tablets?|pills?|puffs?|drops?|capsules?)\b|%|percent\b)",
    re.IGNORECASE,
)
_TIMES = r"(?:once|twice|one time|two times|three times|four times|five times)"
FREQUENCY = re.compile(
    rf"\b(?:{_TIMES} (?:daily|weekly|a day|a week|a month|per day|per week|each day|every day|an hour)"
    rf"|every (?:other day|day|morning|night|evening|week|month|{_NUMBER} (?:to {_NUMBER} )?(?:hours?|days?|weeks?))"
    r"(?: as needed)?"
    r"|at bedtime|at night|before bed|in the morning|in the evening|as needed|when needed|daily|weekly|nightly)\b",
    re.IGNORECASE,
)
COURSE = re.compile(rf"\bfor (?:the next |another |about )?(?P<span>{_SPAN})\b", re.IGNORECASE)
