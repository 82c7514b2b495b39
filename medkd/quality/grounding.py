"""Does the conversation say what the record says? Each value points to the turns that support it, or is reported.

How a value is looked up is its field's rule (`quality.rules`): names, ages, drugs and doses literally after normalisation
(`quality.spoken`), diagnoses, symptoms and history by their content words. Whose illness it is, and whether it was negated,
is not judged; a drug and its dose are looked up apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

from medkd.quality.rules import NONE, Rule, rules_of
from medkd.quality.spoken import content_stems, tokens
from medkd.records import NOT_PROVIDED, Record, RecordSchema
from medkd.samples import turns

_ENOUGH_WORDS = 0.6  # of a value's content words: "chest pain on effort" is supported by "pain in my chest"

_DENIALS = frozenset(
    "no nope none not never without nothing neither nor don't doesn't didn't haven't hasn't isn't aren't deny denied".split()
)
_TITLES = frozenset(["mr", "mrs", "ms", "miss", "dr", "mister"])

# A number before or after one of these counts something else than years of age.
_COUNTED = frozenset(
    "mg mcg g kg ml unit percent hour minute day week month time tablet pill puff pound degree over pack dose drop".split()
)
_SPAN_BEFORE = frozenset(["for", "past", "last", "over", "within", "every"])

_FEMALE_NOUN = r"(?:woman|female|lady|girl|mother of|mum of|mom of)"
_MALE_NOUN = r"(?:man|male|gentleman|guy|boy|father of|dad of)"
_DESCRIBED = r"\b(?:an?|am|i'm|as|old|young|sex|gender|is|this)\b(?:\W+\w+){0,2}?\W+"
_SEX_CUES = {
    "female": re.compile(
        rf"\b(?:Mrs|Ms|Miss)\b\.? ?(?=[A-Z])|\b[Mm]a'am\b|\b[Mm]adam\b|, miss\b|(?i:{_DESCRIBED}{_FEMALE_NOUN}\b"
        r"|\b(?:pregnan|menstrua|menopaus|uter[iu]|ovar|hysterectom|pap smear|my periods?\b))"
    ),
    "male": re.compile(
        rf"\bMr\b\.? ?(?=[A-Z])|\b[Mm]ister\b|\b[Ss]ir\b|(?i:{_DESCRIBED}{_MALE_NOUN}\b|\b(?:prostat|testic|erectile))"
    ),
}
_THIRD_PERSON_CUES = {
    "female": re.compile(r"\b(?:she|her|hers|daughter|wife|mother|mom|mum|sister|girl|grandmother)\b", re.IGNORECASE),
    "male": re.compile(r"\b(?:he|him|his|son|husband|father|dad|brother|boy|grandfather)\b", re.IGNORECASE),
}
_RELATIVES = re.compile(
    r"\bmy (?:\w+ )?(?:mother|mom|mum|father|dad|sister|brother|wife|husband|partner|daughter|son|aunt|uncle|cousin|friend"
    r"|grandmother|grandfather|boss|neighbou?r)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """evidence: for each leaf path, the turns (from 0, as `samples.turns` counts) that support its values.

    unsupported: (leaf path, value) pairs that no turn supports, in record order.
    """

    evidence: dict[str, tuple[int, ...]]
    unsupported: tuple[tuple[str, str], ...]


def ground(record: Record, conversation: str, schema: RecordSchema) -> Grounding:
    """Look up every value of a valid record in its conversation. NOT PROVIDED claims nothing and needs no support."""
    talk, rules = _Talk(conversation), _rules(schema)
    evidence: dict[str, set[int]] = {}
    unsupported: dict[tuple[str, str], None] = {}
    for path, value in schema.values(record):
        if value == NOT_PROVIDED:
            continue
        found = _denied(talk, rules[path]) if value == NONE else _SUPPORT[rules[path].support](talk, value)
        if found:
            evidence.setdefault(path, set()).update(found)
        else:
            unsupported[path, value] = None
    return Grounding(evidence={path: tuple(sorted(found)) for path, found in evidence.items()}, unsupported=tuple(unsupported))


class _Talk:
    """A conversation's turns in the forms that the look-ups need, each made once."""

    def __init__(self, conversation: str) -> None:
        self.turns = turns(conversation)
        self.words = [tokens(turn.text) for turn in self.turns]

    @cached_property
    def spaced(self) -> list[str]:
        """Each turn's words between spaces, so that a phrase is found by `in` at word boundaries only."""
        return [f" {' '.join(words)} " for words in self.words]

    @cached_property
    def stems(self) -> list[frozenset[str]]:
        return [content_stems(words) for words in self.words]

    @cached_property
    def has_third_speaker(self) -> bool:
        """Whether somebody (a parent, a guest) speaks about the patient as she or he."""
        return any(not turn.speaker.lower().startswith(("doctor", "patient")) for turn in self.turns if turn.speaker)


@lru_cache(maxsize=32)
def _rules(schema: RecordSchema) -> Mapping[str, Rule]:
    return rules_of(schema)


def _literal(talk: _Talk, value: str) -> list[int]:
    """Turns that say the whole value, word for word."""
    words = tokens(value)
    if not words:
        return [index for index, turn in enumerate(talk.turns) if value in turn.text]
    phrase = f" {' '.join(words)} "
    return [index for index, turn in enumerate(talk.spaced) if phrase in turn]


def _name(talk: _Talk, value: str) -> list[int]:
    """Turns that say any word of the name, if each word is said in some turn; titles do not count."""
    phrases = [f" {word} " for word in tokens(value) if word not in _TITLES]
    places = [[index for index, turn in enumerate(talk.spaced) if phrase in turn] for phrase in phrases]
    return [index for place in places for index in place] if all(places) else []


def _age(talk: _Talk, value: str) -> list[int]:
    """Turns in which the number stands for itself or for years, and not for a dose, a span or a count."""
    return [
        index
        for index, words in enumerate(talk.words)
        if value in words and any(word == value and _may_be_age(words, place) for place, word in enumerate(words))
    ]


def _may_be_age(words: tuple[str, ...], place: int) -> bool:
    before, after = words[place - 1] if place else "", words[place + 1 : place + 3]
    return before not in _SPAN_BEFORE and not (after and after[0] in _COUNTED) and after != ("year", "ago")


def _sex(talk: _Talk, value: str) -> list[int]:
    """Turns that address or describe the patient as of this sex.

    She and he, daughter and son count only where a third person speaks; elsewhere they are about somebody else.
    """
    if value not in _SEX_CUES:
        return _literal(talk, value)
    cues, third = _SEX_CUES[value], _THIRD_PERSON_CUES[value] if talk.has_third_speaker else None
    return [
        index
        for index, turn in enumerate(talk.turns)
        if (third and third.search(turn.text)) or (cues.search(turn.text) and not _RELATIVES.search(turn.text))
    ]


def _words(talk: _Talk, value: str) -> list[int]:
    """Turns, or else the first pair of neighbours, that say enough of the value's content words and all of its numbers."""
    words = tokens(value)
    wanted = content_stems(words)
    if not wanted:
        return _literal(talk, value)
    numbers = {word for word in wanted if word[0].isdigit()}
    counts = _counts(words)
    needed = _ENOUGH_WORDS * len(wanted)

    def say(said: frozenset[str], first: int, last: int) -> bool:
        return len(said) >= needed and numbers <= said and all(count in "".join(talk.spaced[first:last]) for count in counts)

    said = [wanted & stems for stems in talk.stems]
    pairs = ([index, index + 1] for index, (one, next_one) in enumerate(pairwise(said)) if say(one | next_one, index, index + 2))
    return [index for index, one in enumerate(said) if say(one, index, index + 1)] or next(pairs, [])


def _counts(words: tuple[str, ...]) -> list[str]:
    """The numbers of a value with what they count: `3 week` must be said as such, "three ... a week" is something else."""
    pairs = pairwise(words)
    return [f" {number} {counted} " for number, counted in pairs if number[0].isdigit() and counted in {*_COUNTED, "year"}]


def _denied(talk: _Talk, rule: Rule) -> list[int]:
    """Turns with a denial whose own words, or those of the turn before, are about the field."""
    found = []
    for index, words in enumerate(talk.words):
        if not _DENIALS.isdisjoint(words):
            near = (*(talk.words[index - 1] if index else ()), *words)
            if not rule.denied_about or any(word.startswith(rule.denied_about) for word in near):
                found.append(index)
    return found


_SUPPORT: dict[str, Callable[[_Talk, str], list[int]]] = {
    "literal": _literal,
    "name": _name,
    "age": _age,
    "sex": _sex,
    "words": _words,
}
