"""Sets of characters as ranges of code points, and regular expressions of how a tokenizer's escapes write them. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from medkd.student.escapes import Escapes

Ranges = tuple[tuple[int, int], ...]
"""First and last code point of each run of a set, in order and apart."""

_LAST = 0x10FFFF
EVERY: Ranges = ((0, _LAST),)


@lru_cache(maxsize=256)
def matching(expression: str, flags: int = 0) -> Ranges:
    """The characters that a regular expression of one character matches, as Python's `re` takes it."""
    runs = re.finditer(f"(?:{expression})+", _every_character(), flags)
    return tuple((run.start(), run.end() - 1) for run in runs)


@lru_cache(maxsize=1)
def _every_character() -> str:
    return "".join(map(chr, range(_LAST + 1)))


def characters(text: str) -> Ranges:
    """The set of a text's characters."""
    return tuple((ord(character), ord(character)) for character in sorted(set(text)))


def others(ranges: Ranges) -> Ranges:
    """All characters but these."""
    edges = [-1, *(edge for one in ranges for edge in one), _LAST + 1]
    return tuple((low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2], strict=True) if low + 1 < high)


def common(one: Ranges, other: Ranges) -> Ranges:
    """The characters of both."""
    found, place = [], 0
    for low, high in one:
        while place < len(other) and other[place][1] < low:
            place += 1
        for start, end in other[place:]:
            if start > high:
                break
            found.append((max(low, start), min(high, end)))
    return tuple(found)


def union(one: Ranges, other: Ranges) -> Ranges:
    """The characters of either."""
    return others(common(others(one), others(other)))


# What no value of a record may hold: control characters, and surrogates, which are no characters.
SAYABLE = common(others(matching("[\x00-\x1f\x7f-\x9f]")), others(((0xD800, 0xDFFF),)))


class Spelling:
    """How characters of a record's values stand in a student's answer: doubled brackets, the tokenizer's escapes."""

    def __init__(self, escapes: Escapes, says: Callable[[str], bool]) -> None:
        """says: whether the tokenizer keeps a character, as for `Escapes.write`."""
        self._sign, self._codes = escapes.sign, escapes.codes
        self._bracket = escapes.write("[", says)

    def one_of(self, ranges: Ranges) -> str:
        """A regular expression (Rust's syntax) of one character of the set, however it may be escaped; "" where none is
        sayable."""
        ranges = common(ranges, SAYABLE)
        bracket = characters("[")
        plain = common(ranges, others(characters("[" + self._sign)))
        letters = "".join(code for character, code in self._codes.items() if character != "[" and _holds(ranges, character))
        letters += self._sign * _holds(ranges, self._sign) + "s" * _holds(ranges, " ")
        numbered = common(ranges, others(bracket))
        sign = literal(self._sign)
        forms = [
            f"[{''.join(_span(*run) for run in plain)}]" if plain else "",
            literal(self._bracket * 2) if common(ranges, bracket) else "",
            f"{sign}[{''.join(map(literal, sorted(letters)))}]" if letters else "",
            f"{sign}u(?:{'|'.join(_hexadecimal(numbered))}){sign}" if numbered else "",
        ]
        written = "|".join(filter(None, forms))
        return f"(?:{written})" if written else ""

    def text(self, text: str, *, any_case: bool = False) -> str:
        """A regular expression of one text."""
        flags = re.IGNORECASE if any_case else 0
        return "".join(self.one_of(matching(re.escape(character), flags)) for character in text)


def literal(text: str) -> str:
    """A regular expression of the text as it is, without a character that a grammar's own syntax knows."""
    return "".join(f"\\x{{{ord(character):X}}}" for character in text)


def _holds(ranges: Ranges, character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in ranges)


def _span(low: int, high: int) -> str:
    return literal(chr(low)) + (f"-{literal(chr(high))}" if high > low else "")


def _hexadecimal(ranges: Ranges) -> Iterator[str]:
    """Regular expressions of the numbers in these ranges, as escapes write them."""
    for low, high in ranges:
        while low <= high:
            longest = int("f" * len(f"{low:x}"), 16)
            yield from _digits(f"{low:x}", f"{min(high, longest):x}")
            low = longest + 1


def _digits(low: str, high: str) -> Iterator[str]:
    """The numbers from one to another of as many digits."""
    size = len(low)
    if set(low) <= {"0"} and set(high) <= {"f"}:
        yield f"[0-9a-f]{{{size}}}" if size else ""
    elif low[0] == high[0]:
        yield from (low[0] + rest for rest in _digits(low[1:], high[1:]))
    else:
        yield from (low[0] + rest for rest in _digits(low[1:], "f" * (size - 1)))
        middle = "0123456789abcdef"[int(low[0], 16) + 1 : int(high[0], 16)]
        if middle:
            yield f"[{middle}][0-9a-f]{{{size - 1}}}"
        yield from (high[0] + rest for rest in _digits("0" * (size - 1), high[1:]))
