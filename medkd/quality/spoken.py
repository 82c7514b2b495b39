"""Spoken text in one normal form, so that a record's `20 mg` meets a conversation's "twenty milligrams".

Folded: case and Unicode form, number words (`fifty-four` = `54`), decimals that speech recognition takes apart (`12 . 5 mg`,
`one point five`), units (`milligrams` = `mg`), spelled-out letters (`A D H D`), possessives and plurals. Not folded: synonyms,
brand names, word order.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"  # 1,000 and 12.5
    r"|\.\s?(?=\d)"  # the point of a decimal that was taken apart, or the end of a sentence before a number
    r"|[^\W\d_]+(?:'[^\W\d_]+)*|%"
)
_SPELLED = re.compile(r"\b(?:[A-Z][. ] ?){2,}[A-Z]\b")

_SMALL = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split()
    )
}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = frozenset(["hundred", "thousand"])
_NUMBER_STARTS = frozenset([*_SMALL, *_TENS, "a", "point"])
# Without one of these and without a digit there is no number ("a" starts one in "a hundred" only).
_NUMBER_CUES = frozenset([*_SMALL, *_TENS, *_SCALES, "point"])
_NUMERIC = re.compile(r"[\d.]")
NUMBER_WORDS = frozenset([*_SMALL, *_TENS, *_SCALES, "half", "quarter"])

_UNITS = {
    "mg": "mg mgs milligram milligrams milligramme milligrammes",
    "mcg": "mcg mcgs ug μg microgram micrograms microgramme microgrammes",
    "g": "g gm gms gram grams gramme grammes",
    "kg": "kg kgs kilo kilos kilogram kilograms",
    "ml": "ml mls cc milliliter milliliters millilitre millilitres",
    "unit": "unit units iu",
    "percent": "% percent",
}
_UNIT_OF = {spelling: unit for unit, spellings in _UNITS.items() for spelling in spellings.split()}
_SAME_WORD = {**_UNIT_OF, "daily": "day", "nightly": "night", "weekly": "week", "hourly": "hour", "monthly": "month"}

_STOP_WORDS = frozenset(
    "a an and any as at be been by can could did do does for from had has have he her his i i'm i've in is it its just me my "
    "of on or our per she so some that the their there they this to up was we were will with would you your".split()
)


def tokens(text: str) -> tuple[str, ...]:
    """The words and numbers of a text in normal form, in order."""
    joined = _SPELLED.sub(lambda match: re.sub("[. ]", "", match[0]), text)
    plain = (joined if joined.isascii() else unicodedata.normalize("NFKC", joined).replace("’", "'")).lower()
    words = _TOKEN.findall(plain)
    if _NUMERIC.search(plain) or not _NUMBER_CUES.isdisjoint(words):
        words = _fold_numbers(words)
    return tuple(map(_fold_word, words))


@lru_cache(maxsize=65536)
def normal_form(value: str) -> str:
    """A value as it is compared: its tokens joined by spaces; a value without any word is only case-folded."""
    return " ".join(tokens(value)) or " ".join(unicodedata.normalize("NFKC", value).lower().split())


def content_stems(words: tuple[str, ...]) -> frozenset[str]:
    """Stems of the tokens that carry meaning; numbers stay as they are."""
    return frozenset(map(stem, set(words) - _STOP_WORDS))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A light stem: `coughing`, `coughed` and `cough` are one, so are `dizzy` and `dizziness`."""
    for ending in ("ness", "ing", "ed", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    if len(word) > 3 and word.endswith("e"):
        return word[:-1]
    return word[:-1] + "i" if len(word) > 3 and word.endswith("y") else word


@lru_cache(maxsize=65536)
def _fold_word(word: str) -> str:
    word = word.removesuffix("'s")
    if word in _SAME_WORD:
        return _SAME_WORD[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and word[-2] not in "sui":
        return word[:-1]
    return word


def _fold_numbers(words: list[str]) -> list[str]:
    folded = []
    position = 0
    while position < len(words):
        word = words[position]
        if word in _NUMBER_STARTS or word[0].isdigit() or word[0] == ".":
            number, position = _number_at(words, position)
            folded.extend([number] if number else [])
        else:
            folded.append(word)
            position += 1
    return folded


def _number_at(words: list[str], start: int) -> tuple[str, int]:
    """The number written from `start` on, and where it ends; a word that starts no number stands for itself, a stop for ''."""
    word = words[start]
    if word in (".", ". ", "point"):
        digits, end = _decimals(words, start)
        return (_plain(f"0.{digits}"), end) if digits else ("" if word[0] == "." else word, start + 1)
    if word == "a" and not (start + 1 < len(words) and words[start + 1] in _SCALES):
        return word, start + 1
    whole, end = _whole(words, start)
    digits, end = _decimals(words, end, whole_before=True) if "." not in whole else ("", end)
    if digits:
        return _plain(f"{whole}.{digits}"), end
    if words[end : end + 3] == ["and", "a", "half"]:
        return _plain(f"{whole}.5"), end + 3
    return _plain(whole), end


def _whole(words: list[str], start: int) -> tuple[str, int]:
    """A number up to its decimal point: digits as written, or number words added up."""
    if words[start][0].isdigit() and not (start + 1 < len(words) and words[start + 1] in _SCALES):
        return words[start].replace(",", ""), start + 1
    thousands = 0.0
    rest, end = _below_hundred(words, start)
    while end < len(words) and words[end] in _SCALES:
        if words[end] == "hundred":
            rest *= 100
        else:
            thousands, rest = thousands + rest * 1000, 0
        end += 1
        following = end + 1 if words[end : end + 1] == ["and"] else end
        if following < len(words) and (words[following] in _SMALL or words[following] in _TENS):
            more, end = _below_hundred(words, following)
            rest += more
    return _plain(str(thousands + rest)), end


def _below_hundred(words: list[str], start: int) -> tuple[float, int]:
    word = words[start]
    if word == "a":
        return 1, start + 1
    if word[0].isdigit():
        return float(word.replace(",", "")), start + 1
    if word in _TENS:
        ones = _SMALL.get(words[start + 1], 0) if start + 1 < len(words) else 0
        return (_TENS[word] + ones, start + 2) if 0 < ones < 10 else (_TENS[word], start + 1)
    return _SMALL[word], start + 1


def _decimals(words: list[str], point: int, whole_before: bool = False) -> tuple[str, int]:
    """The digits after a decimal point that stands at `point`, or '' where it is none.

    A stop followed by a space, and a bare "point five", may mean something else: they count only where a unit follows.
    """
    if point >= len(words) or words[point] not in (".", ". ", "point"):
        return "", point
    digits, end = "", point + 1
    while end < len(words) and (words[end].isdigit() or _SMALL.get(words[end], 10) < 10):
        digits += words[end] if words[end].isdigit() else str(_SMALL[words[end]])
        end += 1
    certain = words[point] == "." or (words[point] == "point" and whole_before)
    if digits and (certain or (end < len(words) and words[end] in _UNIT_OF)):
        return digits, end
    return "", point


def _plain(number: str) -> str:
    """The shortest spelling: `2.50` is `2.5`, `007` is `7`."""
    whole, _, decimals = number.partition(".")
    decimals = decimals.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{decimals}" if decimals else whole
