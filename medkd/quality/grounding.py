"""Does the conversation say what the record says? Each value points to the turns that support it, or is reported.

How a value is looked up is its field's rule (`medkd.rules`): names, ages, drugs and doses literally after normalisation
(`quality.spoken`), diagnoses, symptoms and history by their content words, only where they are affirmed of the one whose they
are (`quality.clauses`): what is denied, or said of the family, supports nothing of the patient's. A dose is said of its drug,
and a turn that an item names speaks of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise

from medkd.quality.brands import DRUG_NAMES, names_of
from medkd.quality.clauses import Marked, mark
from medkd.quality.spoken import content_stems, tokens
from medkd.records import NOT_PROVIDED, Record, RecordSchema
from medkd.rules import NONE, Rule, Whose
from medkd.samples import Turn, turns

_ENOUGH_WORDS = 0.6  # of a value's content words: "chest pain on effort" is supported by "pain in my chest"

_REACH = 4  # turns before a dose in which its drug may have been named

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
    evidence: dict[str, set[int]] = {}
    unsupported: dict[tuple[str, str], None] = {}
    for path, value, found in supports(record, conversation, schema):
        if found:
            evidence.setdefault(path, set()).update(found)
        else:
            unsupported[path, value] = None
    return Grounding(evidence={path: tuple(sorted(found)) for path, found in evidence.items()}, unsupported=tuple(unsupported))


def supports(record: Record, conversation: str, schema: RecordSchema) -> Iterator[tuple[str, str, list[int]]]:
    """Each value that claims something, in record order: its leaf path, the value, and the turns that support it."""
    talk, rules = _Talk.read(conversation), schema.rules
    for path, value, item in schema.claims(record):
        if value == NOT_PROVIDED or rules[path].support == "nothing":
            continue
        found = _denied(talk, rules[path]) if value == NONE else _supported(talk, rules[path], value)
        if found and item and rules[path].support == "turn":
            found = _speaking_of(talk, item, path, found, schema)
        elif found and item and rules[path].tied_to:
            found = _tied(talk, value, str(item[rules[path].tied_to]), found, record, schema)
        yield path, value, found


def _supported(talk: _Talk, rule: Rule, value: str) -> list[int]:
    return _SUPPORT[rule.support](talk.of(rule.whose), value)


class _Talk:
    """A conversation's turns in the forms that the look-ups need, each made once. words: of what is looked at, by turn."""

    def __init__(self, spoken: Sequence[Turn], words: list[tuple[str, ...]]) -> None:
        self.turns = spoken
        self.words = words

    @classmethod
    def read(cls, conversation: str) -> _Talk:
        spoken = turns(conversation)
        return cls(spoken, [tokens(turn.text) for turn in spoken])

    def of(self, whose: Whose) -> _Talk:
        """The talk with those words only that affirm something of the patient, or of the family."""
        if whose == "anyone":
            return self
        return self._patient if whose == "patient" else self._family

    @cached_property
    def _marked(self) -> list[Marked]:
        return mark(self.turns, self.has_third_speaker)

    @cached_property
    def _patient(self) -> _Talk:
        return _Talk(self.turns, [marked.patient for marked in self._marked])

    @cached_property
    def _family(self) -> _Talk:
        return _Talk(self.turns, [marked.family for marked in self._marked])

    @cached_property
    def spaced(self) -> list[str]:
        """Each turn's words between spaces, so that a phrase is found by `in` at word boundaries only."""
        return [f" {' '.join(words)} " for words in self.words]

    @cached_property
    def stems(self) -> list[frozenset[str]]:
        return [content_stems(words) for words in self.words]

    @cached_property
    def known_drugs(self) -> frozenset[str]:
        """The drugs of `quality.brands` that are named in any turn."""
        # One word or several: most names are one, and the words of a talk are few beside the names there are.
        one, several = _known_drugs()
        said = "|".join(self.spaced)
        named = (name for name in several if f" {name} " in said)
        return (one & frozenset().union(*self.words)).union(named)

    @cached_property
    def has_third_speaker(self) -> bool:
        """Whether somebody (a parent, a guest) speaks about the patient as she or he."""
        return any(not turn.speaker.lower().startswith(("doctor", "patient")) for turn in self.turns if turn.speaker)


@cache
def _known_drugs() -> tuple[frozenset[str], frozenset[str]]:
    """The names of one word, and those of several."""
    names = frozenset().union(*map(_spoken_names, DRUG_NAMES))
    several = frozenset(name for name in names if " " in name)
    return names - several, several


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


def _drug(talk: _Talk, value: str) -> list[int]:
    """Turns that say the drug by one of its names."""
    return sorted({index for name in names_of(value) for index in _literal(talk, name)})


@lru_cache(maxsize=4096)
def _spoken_names(drug: str) -> frozenset[str]:
    """The drug's names as a talk's words have them."""
    return frozenset(" ".join(tokens(name)) for name in names_of(drug))


def _tied(talk: _Talk, value: str, drug: str, found: Sequence[int], record: Record, schema: RecordSchema) -> list[int]:
    """Of the turns that say the value, those in which the drug named last before it, or else next after it, is its drug."""
    if drug == NOT_PROVIDED or not _drug(talk, drug):
        return list(found)
    own = _spoken_names(drug)
    named = {value for path, value in schema.values(record) if schema.rules[path].support == "drug"}
    others = talk.known_drugs.union(*map(_spoken_names, named)) - own
    wanted = " ".join(tokens(value))
    return [index for index in found if _is_of(talk, index, wanted, own, others)]


def _is_of(talk: _Talk, index: int, wanted: str, own: Collection[str], others: Collection[str]) -> bool:
    """Whether some place where the turn says the value is nearest to its own drug."""
    said = talk.spaced[index]
    places = [match.start() for match in re.finditer(f"(?= {re.escape(wanted)} )", said)]
    earlier, later = talk.spaced[max(0, index - _REACH) : index], talk.spaced[index + 1 : index + 1 + _REACH]
    for place in places:
        before = " | ".join([*earlier, said[: place + 1]])
        after = " | ".join([said[place + len(wanted) + 1 :], *later])
        if _nearest(before, after, own, others):
            return True
    return False


def _nearest(before: str, after: str, own: Collection[str], others: Collection[str]) -> bool:
    """Whether the drug named last before a value is its own; where none is named before, whether the next one after it is."""
    # The parts of a combination are drugs, too: in "amoxicillin-clavulanate 875 mg" no other drug than that is named.
    combined = any(f" {name} " in f" {whole} " for whole in own for name in others)
    before_others, after_others = (_without(text, own) if combined else text for text in (before, after))
    last_own = max((before.rfind(f" {name} ") for name in own), default=-1)
    last_other = max((before_others.rfind(f" {name} ") for name in others), default=-1)
    if max(last_own, last_other) >= 0:
        # "20 mg of lisinopril": the name that follows at once outweighs one before.
        return last_own > last_other or any(after.startswith((f" {name} ", f" of {name} ")) for name in own)
    return _first(after, own) <= _first(after_others, others)


def _without(text: str, names: Collection[str]) -> str:
    """The text with as many signs in place of each of the names."""
    for name in names:
        text = text.replace(f" {name} ", f" {'-' * len(name)} ")
    return text


def _first(text: str, names: Collection[str]) -> int:
    """Where the first of the names begins; the text's end where it holds none."""
    return min((at for name in names if (at := text.find(f" {name} ")) >= 0), default=len(text))


def _turn(talk: _Talk, value: str) -> list[int]:
    """The turn that the value counts to, from 1."""
    return [index for index in range(len(talk.turns)) if str(index + 1) == value]


def _speaking_of(talk: _Talk, item: Record, path: str, found: Sequence[int], schema: RecordSchema) -> list[int]:
    """Of the turns that an item names those that say something of the member which they are tied to, else of any.

    One content word is enough, as an order may be given over several turns; a number or a unit, which any dose may have, is not.
    Nothing is asked of them where the item says nothing else.
    """
    holder = path.rpartition(".")[0]
    rules = {at.rpartition(".")[2]: rule for at, rule in schema.rules.items() if at.rpartition(".")[0] == holder}
    tied_to = rules[path.rpartition(".")[2]].tied_to
    members = [tied_to] if tied_to else [name for name, rule in rules.items() if rule.support not in ("turn", "nothing")]
    wanted: set[str] = set()
    speaking: set[int] = set()
    for name in members:
        for value in [item[name]] if isinstance(item[name], str) else item[name]:
            if value not in (NOT_PROVIDED, NONE):
                wanted |= content_stems(tokens(value))
                speaking.update(_drug(talk, value) if rules[name].support == "drug" else ())
    words = {stem for stem in wanted if not stem[0].isdigit() and stem not in _COUNTED} or wanted
    return [index for index in found if not words or index in speaking or not words.isdisjoint(talk.stems[index])]


_SUPPORT: dict[str, Callable[[_Talk, str], list[int]]] = {
    "literal": _literal,
    "name": _name,
    "age": _age,
    "sex": _sex,
    "words": _words,
    "drug": _drug,
    "turn": _turn,
}
